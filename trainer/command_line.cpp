#include "trainer/command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>
#include <utility>

#include "trainer/config.hpp"
#include "trainer/nearest.hpp"
#include "trainer/version.hpp"

namespace lockstep::trainer {
namespace {

constexpr const char* kExamples = R"(
Examples:
  lockstep dataset import idx images.gz labels.gz -o train.h5
  lockstep train config.toml --out runs/first
  mpirun -np 4 --bind-to none lockstep train config.toml --set training.seed=2
  mpirun -np 4 --bind-to none lockstep doctor
  lockstep train config.toml --out runs/first --resume
  lockstep evaluate runs/first/checkpoints/step-00000468.h5 test.h5

The same configuration gives the same bits for any number of ranks and threads.
LOCKSTEP_INSTRUCTION_SET=AVX2 in the environment keeps to those kernels (for tests: same bits;
others, where the processor has them: AVX3, which is AVX-512, AVX3_BF16, AVX3_AMX and NEON).
Exit codes: 0 done, 1 compared and different, 2 command line or configuration, 3 data or
checkpoint, 4 communication, 5 diverged, 75 stopped by a signal after a checkpoint.)";

constexpr std::size_t kMostThreads = 4096;  // as training.threads

// Everything that options are parsed into; the chosen subcommand says which of it counts.
struct Parsed {
  TrainOptions train;
  std::string out;
  std::string resume;
  bool help_config = false;
  EvaluateOptions evaluate;
  PredictOptions predict;
  DoctorOptions doctor;
  std::string json;
  InspectOptions inspect;
  DiffOptions diff;
  ImportOptions import;
  InfoOptions info;
};

void add_names(CLI::App& app, datasets::Names& names) {
  app.add_option("--x", names.x, "Name of the inputs in the file (default: recognised)");
  app.add_option("--y", names.y, "Name of the targets in the file (default: recognised)");
}

void add_train(CLI::App& app, Parsed& parsed) {
  CLI::App* train = app.add_subcommand(
      "train",
      "Train a network as CONFIG says; run it alone, or under mpirun or srun on many ranks");
  train->add_option("CONFIG", parsed.train.config, "Configuration (TOML)");
  train
      ->add_option("--set", parsed.train.settings,
                   "Set a key over the file: --set training.epochs=5 (may be repeated)")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);
  train
      ->add_option("--out", parsed.out,
                   "Run directory, made if missing (default: a new one under runs/)")
      ->type_name("DIR");
  train
      ->add_option("--resume", parsed.resume,
                   "Go on from this checkpoint, or from the newest valid one of --out")
      ->type_name("[FILE]")
      ->expected(0, 1);
  train->add_flag("--help-config", parsed.help_config,
                  "List every key of the configuration with its default and meaning");
}

void add_evaluate(CLI::App& app, Parsed& parsed) {
  CLI::App* evaluate =
      app.add_subcommand("evaluate", "Loss and accuracy of a checkpoint's network on a dataset");
  evaluate->add_option("CHECKPOINT", parsed.evaluate.checkpoint, "Checkpoint")->required();
  evaluate->add_option("DATA", parsed.evaluate.data, "Dataset (HDF5)")->required();
  evaluate->add_option("--threads", parsed.evaluate.threads, "Threads a rank (default: its share)")
      ->check(CLI::Range(std::size_t{0}, kMostThreads));
  add_names(*evaluate, parsed.evaluate.names);
}

void add_predict(CLI::App& app, Parsed& parsed) {
  CLI::App* predict =
      app.add_subcommand("predict", "The outputs of a checkpoint's network for every sample");
  predict->add_option("CHECKPOINT", parsed.predict.checkpoint, "Checkpoint")->required();
  predict->add_option("DATA", parsed.predict.data, "Dataset (HDF5)")->required();
  predict->add_option("-o,--out", parsed.predict.out, "File for /outputs and /class (HDF5)")
      ->required();
  predict->add_option("--threads", parsed.predict.threads, "Threads a rank (default: its share)")
      ->check(CLI::Range(std::size_t{0}, kMostThreads));
  add_names(*predict, parsed.predict.names);
}

constexpr const char* kDoctorHelp = R"(
Start it as training would be started, with what stands before "lockstep train":
  mpirun -np 4 --bind-to none lockstep doctor
  srun --ntasks=16 --cpus-per-task=8 lockstep doctor --json placement.json
  lockstep doctor --threads 8          # if training.threads = 8

It looks at hosts, the processors that ranks may run on, quotas (cgroups) and
instruction sets; times messages between ranks, one way, as lockstep waits for
them; measures lockstep's float32 products and memory, on one thread alone and
on all threads of all ranks at once; and says what to mend, and how. That takes
some seconds. Whatever else runs meanwhile shows in the figures, which is what
they are for. The exit code is 0 also where something is to mend.)";

void add_doctor(CLI::App& app, Parsed& parsed) {
  CLI::App* doctor = app.add_subcommand(
      "doctor", "How ranks and threads are placed, how fast they compute and talk, what to mend");
  doctor
      ->add_option("--threads", parsed.doctor.threads,
                   "Threads a rank, as training.threads (default: its share)")
      ->check(CLI::Range(std::size_t{0}, kMostThreads));
  doctor->add_option("--json", parsed.json, "Write all that is found to this file as well")
      ->type_name("FILE");
  doctor->footer(kDoctorHelp);
}

void add_looking(CLI::App& app, Parsed& parsed) {
  CLI::App* inspect = app.add_subcommand(
      "inspect", "What a checkpoint holds, or the network that a configuration (.toml) makes");
  inspect->add_option("FILE", parsed.inspect.file, "Checkpoint or configuration")->required();
  CLI::App* diff = app.add_subcommand(
      "diff", "The first difference of two checkpoints (exit 0: same bits, 1: different)");
  diff->add_option("A", parsed.diff.a, "Checkpoint")->required();
  diff->add_option("B", parsed.diff.b, "Checkpoint")->required();
}

void add_dataset(CLI::App& app, Parsed& parsed) {
  CLI::App* dataset = app.add_subcommand("dataset", "Bring data in, and look at it");
  dataset->require_subcommand(1);
  CLI::App* import = dataset->add_subcommand("import", "Turn files of other formats into HDF5");
  import->require_subcommand(1);
  CLI::App* idx = import->add_subcommand(
      "idx", "IDX, the format of MNIST: an images and a labels file, gzip or plain");
  idx->add_option("IMAGES", parsed.import.images, "Images (IDX)")->required();
  idx->add_option("LABELS", parsed.import.labels, "Labels (IDX)")->required();
  idx->add_option("-o,--out", parsed.import.out, "Dataset to write (HDF5)")->required();
  CLI::App* info = dataset->add_subcommand("info", "What a dataset holds");
  info->add_option("FILE", parsed.info.file, "Dataset (HDF5)")->required();
  add_names(*info, parsed.info.names);
}

Command train_command(const CLI::App& train, Parsed& parsed) {
  if (parsed.help_config) return Message{describe_keys()};
  if (train.count("CONFIG") == 0) {
    return Message{
        "lockstep train: CONFIG is required, and comes before --resume (see lockstep train "
        "--help)\n",
        ExitCode::wrong_configuration};
  }
  if (train.count("--out") > 0) parsed.train.out = parsed.out;
  parsed.train.resume = train.count("--resume") > 0;
  if (!parsed.resume.empty()) parsed.train.checkpoint = parsed.resume;
  if (parsed.train.resume && !parsed.train.out) {
    return Message{"lockstep train: --resume needs --out DIR, the run to go on with\n",
                   ExitCode::wrong_configuration};
  }
  return parsed.train;
}

Command chosen_command(const CLI::App& app, Parsed& parsed) {
  const CLI::App* command = app.get_subcommands().front();
  const std::string name = command->get_name();
  if (name == "train") return train_command(*command, parsed);
  if (name == "evaluate") return parsed.evaluate;
  if (name == "predict") return parsed.predict;
  if (name == "doctor") {
    if (command->count("--json") > 0) parsed.doctor.json = parsed.json;
    return parsed.doctor;
  }
  if (name == "inspect") return parsed.inspect;
  if (name == "diff") return parsed.diff;
  if (command->got_subcommand("info")) return parsed.info;
  return parsed.import;
}

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
  Parsed parsed;
  CLI::App app("lockstep trains neural networks on CPU clusters.", "lockstep");
  app.set_version_flag("--version", std::string("lockstep ") + kProgramVersion);
  app.footer(kExamples);
  app.require_subcommand(1);
  add_train(app, parsed);
  add_evaluate(app, parsed);
  add_predict(app, parsed);
  add_doctor(app, parsed);
  add_looking(app, parsed);
  add_dataset(app, parsed);
  std::vector<std::string> known;
  for (const CLI::App* command : std::as_const(app).get_subcommands({})) {
    known.push_back(command->get_name());
  }
  const std::string first = argc > 1 ? argv[1] : "-";
  if (!first.starts_with('-') && std::ranges::find(known, first) == known.end()) {
    return Message{
        "lockstep: unknown command " + first + "; did you mean " + nearest(first, known) + "?\n",
        ExitCode::wrong_configuration};
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out, err;
    const bool wrong = app.exit(error, out, err) != 0;
    return Message{(wrong ? "lockstep: " : "") + out.str() + err.str(),
                   wrong ? ExitCode::wrong_configuration : ExitCode::done};
  }
  return chosen_command(app, parsed);
}

}  // namespace lockstep::trainer
