"""The comparison as text."""


def print_row(row, rounds, seconds):
    if not row["results"]:
        print(f"{row['name']}: left out: {row['left_out'][0]}\n", flush=True)
        return
    print(f"{row['name']}: {'-'.join(map(str, row['widths']))}, median of {rounds} x {seconds:g} s")
    print(f"  {'':44} {'samples/s':>11} {'range':>21} {'GFLOP/s':>8} {'of peak':>7} {'loss':>6}  settings")
    for r in row["results"]:
        speeds = r["samples_per_second"]
        spread = f"{min(speeds):,.0f}-{max(speeds):,.0f}"
        loss = "-" if r["loss"] is None else f"{r['loss']:.3f}"
        print(f"  {r['contender']:44} {r['median']:11,.0f} {spread:>21} {r['gflops']:8.1f} "
              f"{100 * r['share_of_peak']:5.1f} % {loss:>6}  {r['settings']}")
    for line in row["left_out"]:
        print(f"  left out: {line}")
    for line in ratio_lines(row):
        print(f"  {line}")
    print(flush=True)


def ratio_lines(row):
    if not row["ratios"]:
        return ["no ratio: not both sides were measured"]
    return [f"{r['of']} : best {r['to']} = {r['ratio']:.2f}, wanted {r['wanted']:g}"
            + ("" if r["reached"] else ": not reached") for r in row["ratios"]]


# Who is shown beside whom, and under which heading.
COLUMNS = {"PyTorch": ("lockstep", "PyTorch"), "libxsmm": ("lockstep", "libxsmm"),
           "libxsmm, its rule": ("lockstep with plain SGD", "libxsmm"), "FANN": ("lockstep", "FANN")}


def print_summary(rows):
    print(f"{'lockstep to the best of':44} " + " ".join(f"{heading:>17}" for heading in COLUMNS) + f" {'of peak':>8}")
    for row in rows:
        cells = []
        for pair in COLUMNS.values():
            found = [r for r in row["ratios"] if (r["of"], r["to"]) == pair]
            cells.append(f"{found[0]['ratio']:.2f} ({found[0]['wanted']:g}){' ' if found[0]['reached'] else '!'}"
                         if found else "- ")
        shares = [r["share_of_peak"] for r in row["results"] if r["family"] == "lockstep"]
        share = f"{100 * max(shares):.1f} %" if shares else "-"
        print(f"{row['name']:44} " + " ".join(f"{cell:>17}" for cell in cells) + f" {share:>8}")
    print("In brackets what is wanted; ! where it is not reached. libxsmm's one rule is plain SGD, which moves half "
          "as much memory as momentum.\nShare of the peak: the row's precision where the processor has a peak of it, "
          "else float32.")
