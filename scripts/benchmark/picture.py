"""The comparison as one picture: for each row the best of each family, and its share of the limit."""

from .comparison import best_of
from .contender import Unavailable

COLOURS = {"lockstep": "#1b6ca8", "lockstep with plain SGD": "#7fb2d6", "PyTorch": "#e07b39", "libxsmm": "#7a9e59", "FANN": "#9a7aa0"}

WANTED = "wanted of lockstep"


def draw(report, path):
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("python3-matplotlib is missing") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report["rows"] if row["results"]]
    families = [f for f in COLOURS if any(best_of(row["results"], f) for row in rows)]
    lines = 1.9 + 0.75 * len(rows)  # height in inches
    figure, (speed, share) = pyplot.subplots(
        1, 2, figsize=(14, lines), sharey=True, gridspec_kw=dict(width_ratios=[3, 2]))
    height = 0.8 / len(families)
    for i, family in enumerate(families):
        for place, row in enumerate(rows):
            best = best_of(row["results"], family)
            if not best:
                continue
            y = place + (i - (len(families) - 1) / 2) * height
            value, percent = best["median"], 100 * best["share_of_peak"]
            label = family if family not in speed.get_legend_handles_labels()[1] else None
            # Dots, not bars: on a logarithmic scale the length of a bar says nothing.
            speed.plot(value, y, "o", color=COLOURS[family], markersize=6, label=label)
            speed.hlines(y, *(f(best["samples_per_second"]) for f in (min, max)), color=COLOURS[family], linewidth=2)
            speed.annotate(f"{value:,.0f}", (max(best["samples_per_second"]), y), xytext=(7, 0),
                           textcoords="offset points", va="center", fontsize=7)
            share.barh(y, percent, height * 0.92, color=COLOURS[family])
            share.text(percent + 1, y, f"{percent:.3g} %", va="center", fontsize=7)
    for place, row in enumerate(rows):
        to_pytorch = [r for r in row["ratios"] if r["to"] == "PyTorch"]
        if to_pytorch:
            ratio, wanted = to_pytorch[0]["ratio"], to_pytorch[0]["wanted"]
            speed.text(1.0, place, f"x {ratio:.3g}", va="center", ha="right", fontsize=11, fontweight="bold",
                       color=COLOURS["lockstep"], transform=speed.get_yaxis_transform())
            at = wanted * best_of(row["results"], "PyTorch")["median"]
            speed.vlines(at, place - 0.45, place + 0.45, color="black", linewidth=1, linestyle="dotted",
                         label=None if WANTED in speed.get_legend_handles_labels()[1] else WANTED)
    speed.set_yticks(range(len(rows)), [row["name"].replace(" batch", "\nbatch") for row in rows], fontsize=8)
    speed.set_ylim(len(rows) - 0.4, -0.6)
    speed.set_xscale("log")
    low, high = speed.get_xlim()
    speed.set_xlim(low, high * (high / low) ** 0.25)  # room for the ratios
    speed.grid(axis="x", which="both", color="#eeeeee")
    speed.set_axisbelow(True)
    speed.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    speed.xaxis.set_minor_formatter(lambda x, _: f"{x:,.0f}" if high < 30 * low else "")
    speed.tick_params(axis="x", which="both", labelsize=8)
    speed.set_xlabel("samples per second in training, logarithmic; median and range")
    speed.set_title("Best of each family; bold: lockstep to the best PyTorch", fontsize=10)
    share.set_xlim(0, max(100, share.get_xlim()[1]) * 1.1)
    share.axvline(100, color="black", linewidth=0.8)
    share.set_xlabel("% of the peak of all cores, measured in the same run", fontsize=9)
    limits = report["machine"]["limits"]["all"]
    peaks = f"float32 {limits['fma_gflops']:,.0f}"
    if limits.get("bfloat16_gflops"):
        peaks += f", bfloat16 {limits['bfloat16_gflops']:,.0f}"
    share.set_title(f"Share of the multiply-add peak (GFLOP/s: {peaks})", fontsize=10)
    for axes in (speed, share):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.suptitle(f"Training on Fashion-MNIST: {report['machine']['processor']}, {report['machine']['cores']} cores",
                    y=1 - 0.1 / lines, va="top", fontsize=12)
    handles, labels = speed.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: [*families, WANTED].index(labels[i]))
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="lower center", ncol=len(order),
                  frameon=False, bbox_to_anchor=(0.5, 0))
    figure.tight_layout(rect=(0, 0.3 / lines, 1, 1 - 0.2 / lines))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
