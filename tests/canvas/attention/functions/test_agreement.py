"""Every edge function equals a reference written from its formula, row by row, in plain loops."""

import math
from fractions import Fraction

import pytest
import torch

from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, chunks

WIDTH, HEADS = 8, 2
BOXES = {  # groups, src box, dst box
    "one row reads one row": (1, (1, 1, 1), (1, 1, 1)),
    "a single src row": (1, (1, 1, 1), (1, 2, 4)),
    "a single dst row": (1, (1, 2, 3), (1, 1, 1)),
    "more dst rows": (1, (1, 2, 2), (2, 2, 3)),
    "more src rows": (1, (3, 2, 2), (1, 1, 5)),
    "three groups": (3, (1, 2, 3), (1, 4, 2)),
}
COPY_BOXES = {
    "one row reads one row": (1, (1, 1, 1), (1, 1, 1)),
    "a single dst row": (1, (1, 2, 3), (1, 1, 1)),
    "the same boxes": (1, (2, 2, 3), (2, 2, 3)),
    "one dst step": (1, (2, 2, 3), (1, 2, 3)),
    "three groups, one dst column": (3, (1, 2, 3), (1, 2, 1)),
}
CASES = [
    (name, case)
    for name in EDGE_FUNCTIONS
    for case in (COPY_BOXES if name == "copy" else BOXES).items()
]


def heads_of(row):
    return row.view(HEADS, -1)


def projected(project, src, dst):
    """Lists of queries, keys and values, each (H, d)."""
    return (
        [heads_of(project.query.weight @ row) for row in src],
        [heads_of(project.key.weight @ row) for row in dst],
        [heads_of(project.value.weight @ row) for row in dst],
    )


def softmax_sum(logits, values):
    weights = torch.stack(logits).exp()
    return sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True))


def attend(project, src, dst, readable=None):
    """Softmax attention; readable(i, h, logits) lists the dst rows that head h of row i reads."""
    queries, keys, values = projected(project, src, dst)
    out = []
    for i, q in enumerate(queries):
        read = []
        for h in range(HEADS):
            logits = [q[h] @ k[h] / math.sqrt(WIDTH // HEADS) for k in keys]
            listed = range(len(dst)) if readable is None else readable(i, h, logits)
            chosen = [logits[j] for j in listed]
            read.append(softmax_sum(chosen, [values[j][h] for j in listed]) if chosen else 0 * q[h])
        out.append(torch.cat(read))
    return out


def out_rows(project, reads):
    return torch.stack([project.out.weight @ read for read in reads])


def linear_attention(f, src, dst, where):
    queries, keys, values = projected(f.project, src, dst)

    def phi(x):
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())

    reads = []
    for q in queries:
        read = []
        for h in range(HEADS):
            weights = [phi(q[h]) @ phi(k[h]) for k in keys]
            weighted = sum(w * v[h] for w, v in zip(weights, values, strict=True))
            read.append(weighted / sum(weights))
        reads.append(torch.cat(read))
    return out_rows(f.project, reads)


def cosine_attention(f, src, dst, where):
    queries, keys, values = projected(f.project, src, dst)
    reads = []
    for q in queries:
        read = []
        for h in range(HEADS):
            cosines = [q[h] @ k[h] / q[h].norm() / k[h].norm() for k in keys]
            logits = [f.log_scale[h].exp() * cosine for cosine in cosines]
            read.append(softmax_sum(logits, [v[h] for v in values]))
        reads.append(torch.cat(read))
    return out_rows(f.project, reads)


def sigmoid_attention(f, src, dst, where):
    queries, keys, values = projected(f.project, src, dst)
    reads = []
    for q in queries:
        read = []
        for h in range(HEADS):
            logits = [q[h] @ k[h] / math.sqrt(WIDTH // HEADS) for k in keys]
            weights = [1 / (1 + len(dst) * (-logit).exp()) for logit in logits]
            read.append(sum(w * v[h] for w, v in zip(weights, values, strict=True)))
        reads.append(torch.cat(read))
    return out_rows(f.project, reads)


def gated(f, src, dst, where):
    gates = [1 / (1 + (-f.gate.weight @ row).exp()) for row in src]
    reads = attend(f.project, src, dst)
    return out_rows(f.project, [g * read for g, read in zip(gates, reads, strict=True)])


def perceiver(f, src, dst, where):
    latents = f.latents + out_rows(f.compress, attend(f.compress, f.latents, dst))
    return out_rows(f.project, attend(f.project, src, latents))


def pooling(f, src, dst, where):
    return torch.stack([sum(dst) / len(dst) for _ in src])


def copy(f, src, dst, where):
    src_places, dst_places = ((cells - cells.amin(0)).tolist() for cells in where[:2])
    box = [1 + max(axis) for axis in zip(*dst_places, strict=True)]
    wanted = [
        [0 if extent == 1 else p for p, extent in zip(place, box, strict=True)]
        for place in src_places
    ]
    return torch.stack([dst[dst_places.index(place)] for place in wanted])


def silu(x):
    return x / (1 + (-x).exp())


def short_convolution(short, rows, ahead):
    taps, m = len(short.weight), len(rows)
    out = []
    for j in range(m):
        seen = [j + ahead + 1 - taps + i for i in range(taps)]
        terms = [short.weight[i] * rows[s] for i, s in enumerate(seen) if 0 <= s < m]
        out.append(short.bias + sum(terms))
    return out


def mamba(f, src, dst, where):
    state = 0
    for u in short_convolution(f.short, [f.value.weight @ row for row in dst], ahead=0):
        u = silu(u)
        step = (f.step_up.weight @ f.step_down.weight @ u + f.step_up.bias).exp().log1p()
        decay = (step[:, None] * -f.log_rate.exp()).exp()
        state = decay * state + (step * u)[:, None] * (f.write.weight @ u)
    reads = [state @ (f.read.weight @ row) * silu(f.gate.weight @ row) for row in src]
    return torch.stack([f.out.weight @ read for read in reads])


def rwkv(f, src, dst, where):
    decay = heads_of((-f.log_rate.exp()).exp())[..., None]
    state, previous = 0, torch.zeros_like(dst[0])
    for row in dst:
        key = f.project.key.weight @ (f.mix_key * row + (1 - f.mix_key) * previous)
        value = f.project.value.weight @ (f.mix_value * row + (1 - f.mix_value) * previous)
        state = decay * state + heads_of(key)[:, :, None] * heads_of(value)[:, None, :]
        previous = row
    reads = []
    for row in src:
        receptance = heads_of(f.project.query.weight @ row)
        read = torch.stack([receptance[h] @ state[h] for h in range(HEADS)])
        centred = read - read.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        normed = f.norm.weight * normed.flatten() + f.norm.bias
        reads.append(normed * silu(f.gate.weight @ row))
    return out_rows(f.project, reads)


def hyena(f, src, dst, where):
    n, m = len(src), len(dst)
    keys = short_convolution(f.short_key, [f.key.weight @ row for row in dst], ahead=1)
    values = short_convolution(f.short_value, [f.value.weight @ row for row in dst], ahead=1)
    rows = [k * v for k, v in zip(keys, values, strict=True)]

    net = f.filter
    fast, slow = math.log(100) / 0.3, math.log(100) / 1.5
    rates = [slow + (fast - slow) * c / (WIDTH - 1) for c in range(WIDTH)]
    values_at = {}
    for offset in range(1 - m, m):
        x = offset / max(m - 1, 1)
        angles = [math.pi * x * i for i in range(1, 9)]
        features = [x, *map(math.sin, angles), *map(math.cos, angles)]
        hidden = torch.tensor(features, dtype=src.dtype)
        hidden = torch.sin(10 * (net.features.weight @ hidden + net.features.bias))
        hidden = torch.sin(10 * (net.hidden.weight @ hidden + net.hidden.bias))
        window = [math.exp(-rate * abs(x)) + 0.05 for rate in rates]
        values_at[offset] = net.channels.weight @ hidden * torch.tensor(window, dtype=src.dtype)
    total = sum(value.abs() for value in values_at.values())

    out = []
    for i, row in enumerate(src):
        place = math.floor(Fraction(i * (m - 1), max(n - 1, 1)) + Fraction(1, 2))
        convolved = sum(values_at[place - j] / total * rows[j] for j in range(m))
        read = f.query.weight @ row * (convolved + f.skip * rows[place])
        out.append(f.out.weight @ read)
    return torch.stack(out)


def sparse_attention(f, src, dst, where):
    def best(i, h, logits):
        order = sorted(range(len(logits)), key=lambda j: -logits[j].item())
        return order[: f.options.top_k]

    return out_rows(f.project, attend(f.project, src, dst, best))


def local_attention(f, src, dst, where):
    src_cells, dst_cells, src_size, dst_size, _ = where

    def centre(cell):
        t, *place = cell
        scaled = [
            math.floor((Fraction(2 * p + 1, 2)) * their / mine)
            for p, mine, their in zip(place, src_size, dst_size, strict=True)
        ]
        return [t, *scaled]

    def near(i, h, logits):
        middle = centre(src_cells[i].tolist())
        return [
            j
            for j, cell in enumerate(dst_cells.tolist())
            if all(abs(a - b) <= r for a, b, r in zip(cell, middle, f.options.window, strict=True))
        ]

    return out_rows(f.project, attend(f.project, src, dst, near))


def random_fixed(f, src, dst, where):
    subsets = where[-1].tolist()
    return out_rows(f.project, attend(f.project, src, dst, lambda i, h, logits: subsets[i]))


def mixture(f, src, dst, where):
    m = len(dst)
    blocks = math.ceil(m / (f.options.routed_keys // 2))
    size = math.ceil(m / blocks)
    listed = [range(start, min(start + size, m)) for start in range(0, m, size)]
    keys = [f.route_dst.weight @ dst[list(block)].mean(0) for block in listed]
    within = [attend(f.project, src, dst, lambda i, h, logits, b=b: b) for b in listed]
    reads = []
    for i, row in enumerate(src):
        logits = [f.route_src.weight @ row @ key / math.sqrt(WIDTH // HEADS) for key in keys]
        best = sorted(range(len(keys)), key=lambda e: -logits[e].item())[:2]
        reads.append(softmax_sum([logits[e] for e in best], [within[e][i] for e in best]))
    return out_rows(f.project, reads)


REFERENCES = {
    f.__name__: f
    for f in (
        linear_attention,
        cosine_attention,
        sigmoid_attention,
        gated,
        perceiver,
        pooling,
        copy,
        mamba,
        rwkv,
        hyena,
        sparse_attention,
        local_attention,
        random_fixed,
        mixture,
    )
}


def reference(name, function, geometry, src, dst):
    """The reference for every problem of the batch and every group."""
    out = torch.empty_like(src)
    for b in range(src.shape[0]):
        for g in range(src.shape[1]):
            cells = geometry.src_cells[g], geometry.dst_cells[g]
            subsets = function.kept("index", 0)[g] if name == "random_fixed" else None
            where = (*cells, geometry.src_size, geometry.dst_size, subsets)
            out[b, g] = REFERENCES[name](function, src[b, g], dst[b, g], where)
    return out


def test_every_function_has_a_reference():
    assert set(REFERENCES) == set(EDGE_FUNCTIONS)


@pytest.mark.parametrize("elements", [None, 100], ids=["at once", "in chunks"])
@pytest.mark.parametrize("name, case", CASES, ids=[f"{name}: {c[0]}" for name, c in CASES])
def test_outputs_and_all_gradients_equal_the_reference(
    name, case, elements, boxes, rows, options, monkeypatch
):
    if elements is not None:
        monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", elements)
    torch.manual_seed(1)
    geometry = boxes(*case[1])
    function = EDGE_FUNCTIONS[name](WIDTH, HEADS, [geometry], options).double()
    with torch.no_grad():
        for parameter in function.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    src, dst = (x.requires_grad_() for x in rows(geometry, WIDTH))
    out, expected = function(src, dst, 0), reference(name, function, geometry, src, dst)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-11)

    towards = torch.randn_like(out)
    inputs = {"src": src, "dst": dst, **dict(function.named_parameters())}
    found, wanted = (
        torch.autograd.grad(
            (result * towards).sum(),
            list(inputs.values()),
            allow_unused=True,
            materialize_grads=True,
        )
        for result in (out, expected)
    )
    for key, a, b in zip(inputs, found, wanted, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-8, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_the_cases_in_chunks_do_run_in_several(monkeypatch):
    monkeypatch.setattr(chunks, "CPU_CHUNK_ELEMENTS", 100)
    rows, seen = torch.arange(12.0).view(1, 12, 1), []

    def double(chunk, part):
        seen.append(chunk)
        assert torch.equal(part, rows[:, chunk])
        return 2 * part

    pieces = chunks.run_chunks(double, (rows,), 1, elements_per_row=2 * 3 * WIDTH)
    assert len(seen) == 6 and torch.equal(torch.cat(pieces, dim=1), 2 * rows)
