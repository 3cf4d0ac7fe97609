"""Verbs that make data: `frustum data world`, `heads`, `segmentation`, `import kitti-raw`, `import rig`, `status` and others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frustum.cli.common import GOES_ON, JsonOption, OverridesArgument, VersionOption, command, optional, say, table, write_json
from frustum.errors import ConfigError
from frustum.types.table import percent

if TYPE_CHECKING:
    from frustum.data.nuscenes.status import VersionStatus

app = typer.Typer(no_args_is_help=True, help="Generate, import and check data sets; all end up in one format (docs/data.md).")
import_app = typer.Typer(no_args_is_help=True, help="Turn other recordings into the one format.")
app.add_typer(import_app, name="import")

LinkOption = Annotated[
    bool, typer.Option("--link", help="no copies: images get a second name, so editing one in either place changes it in both")
]


def parse_size(text: str) -> tuple[int, int]:
    """`96x256` (height x width) as a pair. Raises ConfigError."""
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise ConfigError(f"--size {text} is not HEIGHTxWIDTH: write for example --size 256x704.")
    return int(parts[0]), int(parts[1])


@command(
    app,
    "world",
    "frustum data world data/street --scenes 20 --val-scenes 6 --frames 15 --size 96x256",
    "frustum data world data/street --size 256x704 --rig rig.json rate=2 sweeps=4 scene.density=1.5",
    "frustum data world data/street --size 256x704 --segmentation data/street_images",
    "frustum data world --print-rig > rig.json",
    after_interrupt=GOES_ON,
)
def world(
    root: Annotated[Path | None, typer.Argument(metavar="OUT", help="folder of the data set", show_default=False)] = None,
    overrides: OverridesArgument = None,
    scenes: Annotated[int | None, optional("--scenes", min=0, help="training scenes")] = None,
    val_scenes: Annotated[int | None, optional("--val-scenes", min=0, help="validation scenes")] = None,
    frames: Annotated[int | None, optional("--frames", min=1, help="keyframes per scene")] = None,
    size: Annotated[str | None, optional("--size", metavar="HxW", help="image size in pixels")] = None,
    rig: Annotated[
        Path | None, optional("--rig", help="JSON with cameras and LiDAR (--print-rig), a calibration.json or a rig folder")
    ] = None,
    seed: Annotated[int | None, optional("--seed", min=0, help="another seed, another city")] = None,
    workers: Annotated[int | None, optional("--workers", min=1, help="processes; by default one per core")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="delete a world with other settings that is in the folder, instead of refusing")
    ] = False,
    images: Annotated[
        Path | None, optional("--segmentation", metavar="DIR", help="also write CAM_FRONT there with the class of each pixel")
    ] = None,
    print_rig: Annotated[bool, typer.Option("--print-rig", help="print the default rig as JSON and stop")] = False,
    print_settings: Annotated[bool, typer.Option("--print-settings", help="print all settings as JSON and stop")] = False,
    json_file: JsonOption = None,
) -> None:
    """Generate a street world: a procedural city, filmed by a camera rig and a LiDAR, with exact labels of every kind.

    Every option is also a setting (key=value), and there are more settings: see --print-settings. The same settings give the same bytes
    for any number of workers; an interrupted run goes on where it was stopped, and more scenes join those that are there.
    """
    from frustum.cli.labelling import write_segmentation
    from frustum.cli.worlds import generate_world, world_config
    from frustum.engine.progress import pace

    image_size = None if size is None else parse_size(size)
    given = {"train_scenes": scenes, "val_scenes": val_scenes, "frames": frames, "seed": seed, "image_size": image_size}
    words = list(overrides or ())
    if root is not None and "=" in str(root):  # no folder was given, and the first setting took its place
        root, words = None, [str(root), *words]
    config = world_config(given, rig, words)
    if images is not None and "semantics" not in config.save:
        config = config.model_copy(update={"save": (*config.save, "semantics")})
    if print_rig or print_settings:
        typer.echo((config.rig if print_rig else config).model_dump_json(indent=2))
        return
    if root is None:
        raise ConfigError("say where the data set goes: frustum data world OUT, for example frustum data world data/street.")
    made = generate_world(config, root, workers, overwrite)
    say(
        f"{made['scenes']} scenes with {made['keyframes']} keyframes are in {root}; {made['generated']} of them are new"
        + (f", {pace(made['keyframes_per_second'], 'keyframes', 1)}. " if made["generated"] else ". ")
        + f"Check them: frustum check {root}"
    )
    written = {} if images is None else {"segmentation": write_segmentation(root, images, "CAM_FRONT", None)}
    write_json(json_file, made | written)


@command(
    app,
    "heads",
    "frustum data heads data/heads --identities 100 --clips 2 --frames 16 --size 128",
    "frustum data heads data/corners --identities 270 --clips 1 --frames 4 --people balanced",
    after_interrupt=GOES_ON,
)
def heads(
    root: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the portraits")],
    identities: Annotated[int | None, optional("--identities", min=1, help="people; every fifth is for validation (default 20)")] = None,
    clips: Annotated[int | None, optional("--clips", min=1, help="clips of each person, each in a scene of its own (default 2)")] = None,
    frames: Annotated[int | None, optional("--frames", min=1, help="frames of a clip, 25 per second (default 16)")] = None,
    size: Annotated[int | None, optional("--size", help="height and width in pixels, 64 to 512 (default 128)")] = None,
    swaps: Annotated[int | None, optional("--swaps", min=0, help="true swaps of each person for validation (default 4)")] = None,
    train_swaps: Annotated[int | None, optional("--train-swaps", min=0, help="true swaps of each person to learn from (default 4)")] = None,
    people: Annotated[str | None, optional("--people", help="drawn at random, or balanced: every skin tone with every look")] = None,
    seed: Annotated[int | None, optional("--seed", min=0, help="another seed, other people (default 0)")] = None,
    workers: Annotated[int | None, optional("--workers", min=1, help="processes; by default one per core")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="delete portraits with other settings that are in the folder, instead of refusing")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Generate talking heads: procedural people in clips, with the parts of the face, landmarks and motion exact.

    The same settings give the same images for any number of workers; an interrupted run goes on where it was stopped, and more people or
    clips join those that are there. OUT/heads.jpg shows people, truth and true head swaps.
    """
    from frustum.cli.worlds import generate_portraits
    from frustum.engine.progress import pace

    given = {"identities": identities, "clips": clips, "frames": frames, "size": size, "people": people, "seed": seed}
    given |= {"swaps": swaps, "train_swaps": train_swaps}
    made = generate_portraits(given, root, workers, overwrite)
    say(
        f"{made['frames']} frames of {made['identities']} people are in {root}; {made['generated']} pictures are new"
        + (f", {pace(made['pictures_per_second'], 'pictures', 1)}. " if made["generated"] else ". ")
        + f"Look at {root / 'heads.jpg'}"
    )
    write_json(json_file, made)


@command(
    import_app,
    "kitti-raw",
    "frustum data import kitti-raw kitti/2011_09_26 data/kitti --train 0-119 --val 120-153",
    after_interrupt=GOES_ON,
)
def kitti_raw(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="folder of a date or a drive, with calibration, oxts and velodyne data")],
    root: Annotated[Path, typer.Argument(metavar="DST", help="folder of the new data set")],
    train: Annotated[str | None, optional("--train", help="frames of the training split, FIRST-LAST")] = None,
    val: Annotated[str | None, optional("--val", help="frames of the validation split, FIRST-LAST")] = None,
    drive: Annotated[str | None, optional("--drive", help="part of a drive's name, if SRC holds several")] = None,
    link: LinkOption = False,
    json_file: JsonOption = None,
) -> None:
    """Import KITTI raw drives: images, LiDAR, poses, boxes of the tracklets, and occupancy that is made from all scans.

    Without --train and --val, the first 78 % of each drive are for training. An interrupted import goes on where it was stopped.
    """
    from frustum.data.kitti.importer import import_kitti_raw
    from frustum.engine.progress import loop_progress

    splits = {name: frames for name, frames in (("train", train), ("val", val)) if frames is not None}
    made = import_kitti_raw(source, root, drive=drive, splits=splits or None, progress=loop_progress, link=link)
    new = made["new_frames"]
    say(f"{made['frames']} keyframes with {made['boxes']} boxes are in {root}, {new} of them are new. Check them: frustum check {root}")
    if new:
        shares = [("occupied", "occupied_share"), ("seen by LiDAR", "mask_lidar_share"), ("seen by cameras", "mask_camera_share")]
        table("Voxels of the new keyframes (percent)", ["", "share"], [(name, percent(made[key])) for name, key in shares])
    write_json(json_file, made)


@command(
    import_app,
    "rig",
    "frustum data import rig my_rig --template 3",
    "frustum data import rig my_rig data/my_rig --scene monday",
    "frustum predict runs/demo/train data/my_rig --out predictions",
)
def rig_folder(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="SRC", help="folder with images and calibration.json (docs/your_own_cameras.md)", show_default=False),
    ] = None,
    root: Annotated[Path | None, typer.Argument(metavar="DST", help="folder of the new data set", show_default=False)] = None,
    template: Annotated[
        int | None, optional("--template", metavar="N", help="import nothing: write SRC/calibration.json for N cameras, to be filled in")
    ] = None,
    scene: Annotated[str | None, optional("--scene", help="name of the recording; by default that of SRC")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace another recording of this name, instead of refusing")] = False,
    link: LinkOption = False,
    json_file: JsonOption = None,
) -> None:
    """Import your own cameras: any number of them, pinhole, lens distortion is undone."""
    from frustum.cli.checking_cameras import say_imported
    from frustum.data.rig.importer import import_rig

    if template is not None:
        from frustum.data.rig.template import write_template

        path = write_template(source or Path(), template)
        say(f"{path} is to be filled in: replace every null, then frustum data import rig {path.parent} DST (docs/your_own_cameras.md)")
        return
    if source is None or root is None:
        raise ConfigError(
            "say what is imported and where it goes: frustum data import rig SRC DST. No calibration.json yet? Add --template N."
        )
    made = import_rig(source, root, scene=scene, overwrite=overwrite, link=link)
    undone = made["undistorted_images"]
    say(
        f"{made['frames']} frames of {len(made['cameras'])} cameras ({', '.join(made['cameras'])}) are in {root}"
        + (f"; lens distortion was undone in {undone} images" if undone else "")
        + ("" if made["is_new"] else f"; they were there already, as the scene {made['scene']}")
        + f". Check them: frustum check {root}"
    )
    framed = say_imported(root, made["scene"])
    write_json(json_file, made | {"framing": framed})


@command(
    app,
    "labels-2d",
    "frustum data labels-2d data/street --out data/street_2d",
    "frustum data labels-2d data/nuscenes --out data/nuscenes_2d --split train --hidden 0.5",
    after_interrupt=GOES_ON,
)
def labels_2d(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="folder of a data set")],
    out: Annotated[Path, typer.Option("--out", help="folder of the labels")],
    split: Annotated[str, typer.Option("--split", help="split or scene")] = "all",
    source: Annotated[
        str, typer.Option("--source", help="lidarseg: classes and depth, lidar: depth, dense: a world's truth images")
    ] = "lidarseg",
    hidden: Annotated[float, typer.Option("--hidden", min=0, help="leave out points that the camera cannot see, see docs/data.md")] = 0.0,
    version: VersionOption = None,
    json_file: JsonOption = None,
) -> None:
    """Write the 2D labels of all images, which networks such as gsrender-mini otherwise make while they load.

    A network reads them with model.views.cache=OUT. What is in the folder already is not made again.
    """
    from frustum.cli.labelling import write_labels_2d

    write_json(json_file, write_labels_2d(root, out, split, source, hidden, version))


@command(app, "aligned", "frustum data aligned runs/aligner data/heads", after_interrupt=GOES_ON)
def aligned(
    aligner: Annotated[str, typer.Argument(metavar="ALIGNER", help="run or weights file")],
    root: Annotated[Path, typer.Argument(metavar="HEADS", help="folder of generated heads, which gets the pictures")],
    parser: Annotated[
        str, typer.Option("--parser", help="face parser for an aligner that draws no parts; by default that of frustum")
    ] = "",
    json_file: JsonOption = None,
) -> None:
    """Draw the heads of true swaps by an aligner, for a blender to learn from: model.aligned=0.5 takes every other one.

    In use a blender gets what an aligner drew, which is less sharp than a true head. Heads that this aligner drew are not drawn again.
    """
    from frustum.cli.aligned_heads import write_aligned
    from frustum.weights.shipped import shipped

    parser = parser or str(shipped("parser") or "")
    if not parser:
        raise ConfigError("this installation of frustum lacks the weights of its parser: give one, --parser RUN, or install it again.")
    write_json(json_file, write_aligned(aligner, parser, root))


@command(
    app,
    "segmentation",
    "frustum data world data/street --size 256x704 'save=[\"semantics\"]'",
    "frustum data segmentation data/street --out data/street_images",
    after_interrupt=GOES_ON,
)
def segmentation(
    root: Annotated[Path, typer.Argument(metavar="WORLD", help="folder of a street world with truth images")],
    out: Annotated[Path, typer.Option("--out", help="folder of the images and label maps")],
    camera: Annotated[str, typer.Option("--camera", help="channel whose images are taken")] = "CAM_FRONT",
    version: VersionOption = None,
    json_file: JsonOption = None,
) -> None:
    """Write one camera's images of a street world with the class of each pixel, as a data set of its own for 2D segmentation.

    A network learns from it with data.root=OUT. What is in the folder already is not made again.
    """
    from frustum.cli.labelling import write_segmentation

    write_json(json_file, write_segmentation(root, out, camera, version))


@command(
    app,
    "features",
    "frustum data features data/street --out data/street_lite0 --teacher efficientnet_lite0 --image-size 192,512",
    "frustum data features data/nuscenes --out data/nuscenes_dino --weights dinov2_vits14_pretrain.pth --image-size 448,798",
    after_interrupt=GOES_ON,
)
def features(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="folder of a data set")],
    out: Annotated[Path, typer.Option("--out", help="folder of the features")],
    teacher: Annotated[
        str, typer.Option("--teacher", help="dinov2_vits14, dinov2_vitb14, resnet50 or efficientnet_lite0")
    ] = "dinov2_vits14",
    weights: Annotated[str, typer.Option("--weights", help="file of its weights; by default those of a package")] = "",
    image_size: Annotated[str, typer.Option("--image-size", help="height,width at which it looks at whole photographs")] = "448,798",
    split: Annotated[str, typer.Option("--split", help="split or scene")] = "train",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    version: VersionOption = None,
    json_file: JsonOption = None,
) -> None:
    """Write a teacher's features of all images in half precision, which occfeat-* otherwise computes while it trains.

    A network learns from them with model.teacher.folder=OUT. What is in the folder already is not made again.
    """
    from frustum.cli.teaching import write_teacher_features

    write_json(json_file, write_teacher_features(root, out, teacher, weights, image_size, split, device, version))


@command(app, "status", "frustum data status data/nuscenes", "frustum data status data/camvid --json status.json")
def status(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="folder of a data set")],
    version: VersionOption = None,
    write_splits: Annotated[
        bool, typer.Option("--write-splits", help="add the splits train_whole, val_whole, ... of scenes with all images to splits.json")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Say what is there, what is missing, what it is needed for and where to get it."""
    from frustum.data.images.opening import holds_images
    from frustum.data.nuscenes.status import data_status, write_whole_splits
    from frustum.data.portraits.opening import holds_portraits

    if version is None and (holds_images(root) or holds_portraits(root)):
        write_json(json_file, _image_status(root))
        return
    found = data_status(root, version)
    for entry in found.versions:
        splits = ", ".join(f"{name} {count}" for name, count in entry.splits.items())
        say(f"{entry.version}: {entry.scenes} scenes, {entry.keyframes} keyframes" + (f" ({splits})" if splits else ""))
        if entry.problem:
            say(entry.problem)
        rows = [(i.name, i.state, f"{i.found} of {i.expected}", i.needed_for) for i in entry.items]
        table("", ["part", "state", "files", "needed for"], rows, numbers=False)
        for item in entry.items:
            if item.get:
                say(f"{item.name}: {item.get}")
        if write_splits:
            made = write_whole_splits(root, entry)
            say(f"{root / entry.version / 'splits.json'} now has " + ", ".join(f"{name} ({len(s)} scenes)" for name, s in made.items()))
        if len(entry.whole.get("all", ())) < entry.scenes:
            say(_whole_scenes(root, entry))
    sizes = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in found.bytes_on_disk.items() if size >= 5e6)
    if sizes:
        say(f"on disk: {sizes}")
    say(found.advice)
    write_json(json_file, asdict(found))


def _whole_scenes(root: Path, entry: VersionStatus) -> str:
    """Which scenes of a partial data set have all their images, and how to train on these alone."""
    names = entry.whole.get("all", [])
    counts = ", ".join(f"{split} {len(members)}" for split, members in entry.whole.items() if split != "all")
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more (--json has all)" if len(names) > 12 else "")
    text = f"{len(names)} of {entry.scenes} scenes have all their images" + (f" ({counts}): {listed}." if names else ".")
    train, val = (next((s for s in options if s in entry.whole), "") for options in (("train", "mini_train"), ("val", "mini_val")))
    chosen = " ".join(f"data.{key}_split={split}_whole" for key, split in (("train", train), ("val", val)) if split)
    if not chosen:
        return text
    chosen += "" if entry.version == "v1.0-trainval" else f" data.version={entry.version}"
    return f"{text} To train on them: frustum data status {root} --write-splits, then frustum train RECIPE data.root={root} {chosen}"


def _image_status(root: Path) -> dict[str, Any]:
    """Say what is in a folder of images with label maps, and return it as JSON values."""
    from frustum.data.images.status import image_status

    found = image_status(root)
    say(f"images with label maps, read as {found.layout}, {len(found.class_names)} classes: {', '.join(found.class_names)}")
    table("", ["split", "images", "with a label map"], [(split.name, str(split.images), str(split.labelled)) for split in found.splits])
    say(found.advice)
    return asdict(found)
