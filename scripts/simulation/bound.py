"""The shortest step that the links and the memory of nodes allow, whoever sends what when.

Every byte of a gradient leaves a node once on its way to the sum and once, moved, on its way back, but
for what the node owns itself: 2 (n - 1) / n times the parameters. What a pass needs first constrains
most: a byte cannot leave before it is computed, and a layer cannot be computed before its parameters are
back. Additions read each of an element's terms at least once: on every node as much as the parameters take.
"""

WIDTHS = (784, 2048, 2048, 10)
PIECE = 1 << 18  # elements of a weight gradient between two tellings (nn/product.hpp)
TILE_ROWS = 64


def up(value, step):
    return (value + step - 1) // step * step


def layers(widths=WIDTHS):
    """(multiply-adds a sample, first element, last element, outputs, inputs) of each layer."""
    found, begin = [], 0
    for inputs, outputs in zip(widths, widths[1:]):
        end = begin + up(inputs * outputs, 16) + up(outputs, 16)
        found.append((inputs * outputs, begin, end, outputs, inputs))
        begin = end
    return found


def parameter_bytes():
    return 4 * layers()[-1][2]


def computing(samples, gflops):
    work = layers()
    return 2 * samples * (3 * sum(l[0] for l in work) - work[0][0]) / (gflops * 1e9)


def releases(samples, gflops):
    """(seconds from the start of backward, no element before this one is final yet), and its end."""
    now, found = 0.0, []
    rate = 2 * samples / (gflops * 1e9)
    for multiply_adds, begin, end, outputs, inputs in reversed(layers()):
        rows, piece = inputs, up(-(-PIECE // outputs), TILE_ROWS)
        upper = end
        while rows > 0:
            first = (rows - 1) // piece * piece
            now += (rows - first) * outputs * rate
            found.append((now, upper))  # all below `upper` waits at least until now
            upper, rows = begin + first * outputs, first
        if begin > 0:
            now += multiply_adds * rate
    return found, now


def shortest_step(network, nodes, samples, gflops, memory, overlap=True):
    share = (nodes - 1) / nodes
    additions = parameter_bytes() / (memory * 1e9)
    alone = computing(samples, gflops)
    both_ways = 2 * share * 4 / network.bandwidth  # seconds for each element
    if not overlap:  # one bucket's additions hide behind another's messages
        return alone + max(additions, both_ways * layers()[-1][2])
    found, backward = releases(samples, gflops)
    step = alone + additions
    before = 0.0  # of the next forward pass, when this layer is wanted
    for multiply_adds, _, end, _, _ in layers():
        for release, upper in found:
            least = release + both_ways * min(upper, end)
            step = max(step, least - backward - before + alone)
        before += 2 * samples * multiply_adds / (gflops * 1e9)
    return step
