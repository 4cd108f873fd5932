"""Efficiency and strong scaling as one picture."""

COLOURS = {"10 Gbit/s": "#e07b39", "100 Gbit/s": "#1b6ca8", "200 Gbit/s": "#7a9e59"}


def draw(report, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (weak, strong) = pyplot.subplots(1, 2, figsize=(12, 4.6))
    for network, colour in COLOURS.items():
        def rows(kind, **wanted):
            return sorted((r for r in report["rows"] if r["kind"] == kind and r["network"] == network and
                           r["nodes"] & (r["nodes"] - 1) == 0 and all(r[k] == v for k, v in wanted.items())),
                          key=lambda r: r["nodes"])
        with_it, without = rows("weak", overlap=True), rows("weak", overlap=False)
        weak.plot([r["nodes"] for r in with_it], [100 * r["efficiency"] for r in with_it], "o-", color=colour,
                  markersize=4, label=network)
        weak.plot([r["nodes"] for r in with_it], [100 * r["bound"] for r in with_it], ":", color=colour)
        weak.plot([r["nodes"] for r in without], [100 * r["efficiency"] for r in without], "x--", color=colour,
                  markersize=4, linewidth=0.8)
        speed = rows("strong", overlap=True)
        strong.plot([r["nodes"] for r in speed], [r["speedup"] for r in speed], "o-", color=colour, markersize=4,
                    label=network)
        strong.plot([r["nodes"] for r in speed], [r["bound"] * r["nodes"] for r in speed], ":", color=colour)
    odd = [r for r in report["rows"] if r["kind"] == "weak" and r["nodes"] & (r["nodes"] - 1)]
    for r in odd:
        weak.plot(r["nodes"], 100 * r["efficiency"], "D", color=COLOURS[r["network"]], markersize=4, fillstyle="none")
    nodes = sorted({r["nodes"] for r in report["rows"] if r["kind"] == "strong"})
    strong.plot(nodes, nodes, color="#bbbbbb", linewidth=1, label="ideal")
    for axes in (weak, strong):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        axes.set_xlabel("nodes")
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
    weak.plot([], [], ":", color="black", label="limit of the network")
    weak.plot([], [], "x--", color="black", linewidth=0.8, markersize=4, label="without overlap")
    if odd:
        weak.plot([], [], "D", color="black", markersize=4, fillstyle="none", label="no power of two")
    weak.set_ylabel("efficiency, %")
    weak.set_ylim(40, 102)
    weak.set_title("Weak scaling: 512 samples a node", fontsize=10)
    weak.legend(fontsize=8, loc="lower left", ncols=2)
    strong.set_yscale("log", base=2)
    strong.yaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
    strong.set_ylabel("times the speed of one node")
    strong.set_title("Strong scaling: 4,096 samples over all nodes", fontsize=10)
    strong.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
