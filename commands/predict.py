"""`bdl predict`: label the user's own photos with a trained network."""

from argparse import Namespace

from bdl.commands.paths import require_path
from bdl.runtime.console import Console, counted, log
from bdl.runtime.lock import alone, make_writable

LOCK = ".bdl-predict.lock"  # in the folder of the predictions


def main(options: Namespace) -> None:
    """Write label maps, overlays and, on demand, probabilities below `--out`."""
    console = Console(verbosity=options.verbosity)
    require_path(options.checkpoint, "a run's folder or a segmenter.pt")
    require_path(options.images, "a photo or a folder of photos")
    from bdl.segmentation.predictor import Predictor, find_photos, find_segmenter, predict_files

    photos = find_photos(options.images, options.out)
    predictor = Predictor(
        find_segmenter(options.checkpoint, options.network),
        size=options.size and tuple(options.size),
        window=options.window and tuple(options.window),
        flip=options.flip,
        scales=options.scales,
        device=options.device,
        precision=options.precision,
        own_network=options.own_network,
    )
    make_writable(options.out, "--out")
    log.info("%s with %s", counted(len(photos), "photo"), predictor.file)
    with alone(options.out / LOCK, "predict"):
        made = predict_files(predictor, console, photos, options.out, options.probabilities)
    there = f"; {made.there} were there" if made.there else ""
    unused = counted(made.unusable, "photo")
    left_out = f"; {unused} could not be used" if made.unusable else ""
    photos_made = counted(made.made, "photo")
    text = f"labels and overlays of {photos_made} are in {options.out}{there}{left_out}"
    (log.warning if made.unusable else log.info)("%s", text)
