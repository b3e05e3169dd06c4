"""Write a CSV of made-up sales, as real business tables are: ids, dates, prices, categories, gaps, a few quotes.

The same size and seed give the same bytes, and a larger file begins like a smaller one. Memory does not grow with the
file.

    python ci_cd/benchmarks/sales_table.py --size-bytes 30000000 --path sales.csv
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

TARGET = "amount"
COLUMNS = (
    *("order_id", "ordered_at", "ships_on", "unit_price", "weight_kg", "discount_share", "quantity", "customer_age"),
    *("is_member", "region", "product_group", "product", "note", TARGET),
)
BLOCK_ROWS = 100_000
FIRST_SECOND = 1_672_531_200  # 2023-01-01
REGIONS = ("Center", "East", "North", "South", "West")
NOTES = tuple(
    f'"{first}, {second}"' if second else first
    for first in ("gift", "fragile", "call first", "back door", "express", "invoice by mail")
    for second in ("", "no bag", "to neighbour", "by noon", "signed")
)


def build_block(number: int, seed: int) -> dict[str, pa.Array]:
    """Return the columns of one block of rows as the texts of its cells, (BLOCK_ROWS,) each.

    Parameters
    ----------
    number : the block's place in the file, from 0
    seed : another seed, another table
    """
    random = np.random.default_rng([seed, number])
    ids = np.arange(BLOCK_ROWS) + number * BLOCK_ROWS
    seconds = FIRST_SECOND + 10 * ids + random.integers(0, 10, BLOCK_ROWS)
    group = _draw_levels(random, 300)
    product = _draw_levels(random, 20_000)
    region = random.integers(0, len(REGIONS), BLOCK_ROWS)
    price = np.round(random.lognormal(3, 0.8, BLOCK_ROWS), 2)
    weight = np.round(random.gamma(2, 1.5, BLOCK_ROWS) + 0.001, 6)
    discount = np.round(random.beta(1, 6, BLOCK_ROWS), 3)
    quantity = random.integers(1, 20, BLOCK_ROWS)
    age = random.integers(18, 90, BLOCK_ROWS)
    member = random.random(BLOCK_ROWS) < 0.4
    note = random.integers(0, 5 * len(NOTES), BLOCK_ROWS)
    amount = price * quantity * (1 - discount) * (1 + _effects(300)[group]) + 4 * weight + 0.1 * age
    amount += 20 * _effects(20_000)[product] + 5 * region - 6 * member + random.normal(0, 5, BLOCK_ROWS)
    days = seconds // 86_400 + random.integers(0, 9, BLOCK_ROWS)
    notes = pa.array([*NOTES, ""])
    return {
        "order_id": _format(ids + 1),
        "ordered_at": _format(pa.array(seconds).cast(pa.timestamp("s"))),
        "ships_on": _format(pa.array(days.astype("int32"), pa.date32())),
        "unit_price": _format(price),
        "weight_kg": _blank(_format(weight), random, 0.03),
        "discount_share": _format(discount),
        "quantity": _format(quantity),
        "customer_age": _blank(_format(age), random, 0.01),
        "is_member": _format(member),
        "region": pa.array(REGIONS).take(pa.array(region)),
        "product_group": pa.array([f"group {level:03d}" for level in range(300)]).take(pa.array(group)),
        "product": pa.array([f"P{level:05d}-{level % 97:02d}" for level in range(20_000)]).take(pa.array(product)),
        "note": notes.take(pa.array(np.minimum(note, len(NOTES)))),
        TARGET: _format(np.round(amount, 2)),
    }


def _draw_levels(random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return codes below `count`, the low ones more often: some products sell better than others."""
    return (count * random.random(BLOCK_ROWS) ** 2).astype(np.int64)


def _effects(count: int) -> NDArray[np.float64]:
    """Return what each level adds to the target, the same in every block."""
    return np.random.default_rng(count).normal(0, 0.3, count)


def _format(values: NDArray[np.generic] | pa.Array) -> pa.Array:
    return pc.cast(pa.array(values), pa.string())


def _blank(texts: pa.Array, random: np.random.Generator, share: float) -> pa.Array:
    """Return the texts with a share of them empty, which is how a CSV says missing."""
    return pc.if_else(pa.array(random.random(len(texts)) < share), "", texts)


def generate_blocks(seed: int) -> Iterator[bytes]:
    """Yield the header and then block after block of complete lines, without end."""
    yield (",".join(COLUMNS) + "\n").encode()
    number = 0
    while True:
        block = build_block(number, seed)
        cells = [block[name] for name in COLUMNS]
        last = pc.binary_join_element_wise(cells[-1], "", "\n")
        lines = pc.binary_join_element_wise(*cells[:-1], last, ",")
        yield lines.buffers()[2].to_pybytes()[: pc.sum(pc.binary_length(lines)).as_py()]
        number += 1


def write_sales(path: Path, size_bytes: int, seed: int = 0) -> None:
    """Write whole lines until the file is as large as asked, or a line less."""
    partial = path.with_name(path.name + ".partial")
    left = size_bytes
    with partial.open("wb") as file:
        for block in generate_blocks(seed):
            file.write(block if len(block) <= left else block[: block.rfind(b"\n", 0, left) + 1])
            left -= len(block)
            if left <= 0:
                break
    os.replace(partial, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Write one file; see the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-bytes", type=int, required=True, help="the file's size, or a line less")
    parser.add_argument("--path", type=Path, required=True, help="the file to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another table (default: %(default)s)")
    args = parser.parse_args(argv)
    write_sales(args.path, args.size_bytes, args.seed)
    print(f"wrote {args.path} ({args.path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
