# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by the tests that are scripts: data and a run that they all train, and how to read results.

# make_bands DIRECTORY SAMPLES: DIRECTORY/bands.h5, images of 28 x 28 noise in ten classes, each
# brighter in a band of its own. Needs $lockstep, the program.
make_bands() {
  (
    cd "$1" || exit
    LC_ALL=C awk -v samples="$2" 'BEGIN {
      high = int(samples / 256); low = samples % 256
      printf "%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c", 0, 0, 8, 3, 0, 0, high, low, 0, 0, 0, 28, 0, 0, 0, 28 >"images"
      printf "%c%c%c%c%c%c%c%c", 0, 0, 8, 1, 0, 0, high, low >"labels"
      state = 1
      for (i = 0; i < samples; ++i) {
        label = i * 7 % 10
        printf "%c", label >"labels"
        for (j = 0; j < 784; ++j) {
          state = (state * 16807) % 2147483647
          printf "%c", state % 128 + (int(j / 78) == label ? 100 : 0) >"images"
        }
      }
    }'
    "$lockstep" dataset import idx images labels -o bands.h5 >/dev/null
    rm images labels
  )
}

# value KEY RUN: a number or a string of the run's summary.json.
value() {
  sed -n "s/.*\"$1\"[: ]*\"\{0,1\}\([^\",}]*\).*/\1/p" "$2/summary.json"
}

# milliseconds: since some moment, in the variable of that name. No process is started for it.
now() {
  milliseconds=$((${EPOCHREALTIME/[.,]/} / 1000))
}

# seconds_of MILLISECONDS: as text with one digit after the point.
seconds_of() {
  printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100))
}
