"""`bdl export-network`: a trained network for other programs."""

from argparse import Namespace

from bdl.commands.paths import require_path
from bdl.runtime.console import Console, log
from bdl.runtime.lock import make_writable
from bdl.runtime.ownership import require_replaceable

_CLASSES = b"label_space"  # what is exported names its classes by it


def main(options: Namespace) -> None:
    """Write the network to `--out`, once it has been shown to give the same labels there."""
    Console(verbosity=options.verbosity)
    require_path(options.checkpoint, "a run's folder or a segmenter.pt")
    require_replaceable(options.out, lambda content: _CLASSES in content, "exported network")
    from bdl.segmentation.export_network import export_network
    from bdl.segmentation.predictor import Predictor, find_segmenter

    size = options.size and tuple(options.size)
    file = find_segmenter(options.checkpoint, options.network)
    predictor = Predictor(file, size=size, device="cpu", own_network=options.own_network)
    make_writable(options.out.parent, "--out")
    free = export_network(predictor, options.out, size, options.free_size)
    log.info("%s gives the same labels as %s", options.out, predictor.file)
    if options.free_size:
        log.info("it takes images of free %s", ", ".join(free) or "nothing: of one size alone")
