"""What whoever uses keyframes of a data set should be told once: files that are left out, cameras that are not there."""

from __future__ import annotations

from collections.abc import Sequence

from frustum.data.nuscenes.reader import NuScenes


def lacking(source: NuScenes, tokens: Sequence[str]) -> list[str]:
    """Sentences about these keyframes: how many have files that the tables mark as invalid, and lack a camera that their scene has.

    Raises:
        DataError: a token that the data set does not have.
    """
    sentences = []
    if source.imageless:
        sentences.append(
            f"{len(source.imageless)} keyframes of the data set are left out: all their images are marked with is_valid: false in "
            "sample_data.json."
        )
    invalid = source.invalid_files(tokens)
    if invalid:
        files = [name for names in invalid.values() for name in names]
        sentences.append(
            f"{len(files)} files of {len(invalid)} of {len(tokens)} keyframes are marked with is_valid: false in sample_data.json and are "
            f"left out, {files[0]} first."
        )
    for channel, without in source.lacking_cameras(tokens).items():
        sentences.append(
            f"{len(without)} of {len(tokens)} keyframes have no image of {channel}, {without[0]} first: they are used with the other "
            "cameras."
        )
    return sentences
