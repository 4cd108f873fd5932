"""The comparison as one picture: for each row the best of each family, and its share of the limit."""

from .comparison import best_of
from .contender import Unavailable

COLOURS = {"lockstep": "#1b6ca8", "PyTorch": "#e07b39", "libxsmm": "#7a9e59", "FANN": "#9a7aa0"}


def draw(report, path):
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("python3-matplotlib is missing") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report["rows"] if row["results"]]
    families = [f for f in COLOURS if any(best_of(row["results"], f) for row in rows)]
    figure, (speed, share) = pyplot.subplots(
        1, 2, figsize=(13, 1.8 + 0.75 * len(rows)), sharey=True, gridspec_kw=dict(width_ratios=[3, 2]))
    height = 0.8 / len(families)
    for i, family in enumerate(families):
        places, speeds, shares = [], [], []
        for place, row in enumerate(rows):
            best = best_of(row["results"], family)
            if best:
                places.append(place + (i - (len(families) - 1) / 2) * height)
                speeds.append(best["median"])
                shares.append(100 * best["share_of_peak"])
        speed.barh(places, speeds, height * 0.92, color=COLOURS[family], label=family)
        share.barh(places, shares, height * 0.92, color=COLOURS[family])
        for place, value, percent in zip(places, speeds, shares):
            speed.text(value * 1.06, place, f"{value:,.0f}", va="center", fontsize=7)
            share.text(percent + 1, place, f"{percent:.3g} %", va="center", fontsize=7)
    for place, row in enumerate(rows):
        to_pytorch = [r for r in row["ratios"] if r["to"] == "PyTorch"]
        if to_pytorch:
            speed.text(0.995, place, f"x {to_pytorch[0]['ratio']:.2f}", va="center", ha="right", fontsize=10,
                       fontweight="bold", color=COLOURS["lockstep"], transform=speed.get_yaxis_transform())
    speed.set_yticks(range(len(rows)), [row["name"].replace(" batch", "\nbatch") for row in rows], fontsize=8)
    speed.set_ylim(len(rows) - 0.4, -0.6)
    speed.set_xscale("log")
    low, high = speed.get_xlim()
    speed.set_xlim(low, high * 12)  # room for the figures
    speed.set_xlabel("samples per second, training (log scale)")
    speed.set_title("Best of each; bold: lockstep to the best PyTorch", fontsize=10)
    share.set_xlim(0, max(100, *share.get_xlim()) * 1.12)
    share.axvline(100, color="black", linewidth=0.8)
    share.set_xlabel("% of the multiply-add peak of all cores, measured in the same run")
    share.set_title(f"Peak: {report['machine']['limits']['all']['fma_gflops']:,.0f} GFLOP/s float32", fontsize=10)
    for axes in (speed, share):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.suptitle(f"Fashion-MNIST on {report['machine']['processor']}, {report['machine']['cores']} cores", y=0.995)
    figure.legend(loc="lower center", ncol=len(families), frameon=False)
    figure.tight_layout(rect=(0, 0.6 / (1.8 + 0.75 * len(rows)) * 0.6, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
