"""A program: Bach's chorales as music21 has them -> piano rolls in one file. Runs where music21 can be imported.

Usage: music_rolls.py SPLITS.json OUT.npz

One frame a quarter note, the notes that sound at the grid point, no mark of a repeated note; repeats expanded;
transposed to C by the last bass note, and an octave up; 88 columns, MIDI 21..108. OUT holds for each split NAME
`NAME_rolls` (packed bits of [frames, 88], all chorales one after another) and `NAME_lengths` (frames of each).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

LOWEST, KEYS = 21, 88
VOICES = ("soprano", "alto", "tenor", "bass")
ROUNDING = 1e-9


def roll(score: Any) -> np.ndarray:
    """[frames, 88] bool of a parsed score."""
    score = score.expandRepeats()
    parts = four_voices(score)
    frames = np.zeros((round(float(score.highestTime)), 128), bool)
    for part in parts:
        for note in part.flatten().notes:
            if note.duration.isGrace:
                continue
            begin, end = float(note.offset), float(note.offset + note.duration.quarterLength)
            rows = slice(int(np.ceil(begin - ROUNDING)), int(np.ceil(end - ROUNDING)))
            frames[rows, [pitch.midi for pitch in note.pitches]] = True
    return np.roll(frames, to_c(parts[3]) + 12, axis=1)[:, LOWEST : LOWEST + KEYS]


def four_voices(score: Any) -> list[Any]:
    """Soprano, alto, tenor and bass by their names; the first four parts where the names do not tell."""
    names = [(part.partName or "").lower() for part in score.parts]
    found = [next((i for i, name in enumerate(names) if name.startswith(voice)), None) for voice in VOICES]
    if None in found:
        return list(score.parts)[:4]
    return [score.parts[i] for i in found]


def to_c(bass: Any) -> int:
    """Semitones, −5..6, from the last bass note's pitch class, taken for the tonic, to C."""
    up = -bass.flatten().notes.last().pitches[0].midi % 12
    return int(up - 12 if up > 6 else up)


def main(splits: Path, out: Path) -> None:
    """Parse every chorale of the split manifest and write the rolls."""
    from music21 import converter, corpus  # here: the module's own functions are tested without the package

    root = Path(corpus.__file__).parent / "bach"
    arrays: dict[str, np.ndarray] = {}
    for split, names in json.loads(splits.read_text())["split"].items():
        rolls = [roll(converter.parse(root / name)) for name in names]
        arrays[f"{split}_rolls"] = np.packbits(np.concatenate(rolls), axis=1)
        arrays[f"{split}_lengths"] = np.array([len(r) for r in rolls], np.int64)
    np.savez(out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
