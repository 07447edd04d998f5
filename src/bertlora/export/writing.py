"""From a run to a folder in another format, which is kept only if it gives the run's answers."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertlora.confidence.calibration import FILES as CALIBRATION
from bertlora.confidence.learned import divisors
from bertlora.errors import InputError, suggestion
from bertlora.export.certificate import Certificate, largest
from bertlora.export.exported import Exported
from bertlora.export.formats import FORMATS
from bertlora.export.origin import Origin, ParityError
from bertlora.export.runners import RUNNERS
from bertlora.files import size_of, whole_folder, write_whole
from bertlora.hashes import CARD, RUN_MANIFEST, hashes_of, names_below, sealed


def export(origin: Origin, out: Path, kind: str, overwrite: bool = False) -> dict[str, Any]:
    """Writes a run to `out` in a format, with its certificate.

    Args:
        origin: what is exported.
        out: the folder to write.
        kind: the format.
        overwrite: replace what `out` holds.

    Returns:
        `format`, `to`, `bytes` of the result and `base_bytes` of the full base model. `texts` is the number of texts on
        which it was compared with the run, and `largest_difference` is the largest between their logits. A format may
        add more.

    Raises:
        InputError: the format is unknown, or needs an extra that is not installed.
        ParityError: the export gives other answers than the run; nothing is kept.
        OutputError: `out` is not empty, holds the source or its base, or cannot be written.
    """
    if kind not in FORMATS:
        raise InputError(f"format '{kind}' is unknown; expected {', '.join(FORMATS)}{suggestion(kind, FORMATS)}")
    adapted, source, form = origin.adapted, origin.folder, FORMATS[kind]
    certificate = Certificate.of(adapted, kind)
    with whole_folder(out, overwrite, (source, source / "adapter", adapted.base.folder)) as folder:
        facts = form.write(origin, folder)
        for name in CALIBRATION:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        certificate.save(folder)
        if form.has_model:
            scale = divisors(origin.calibration, len(adapted.labels))
            runner = RUNNERS[kind](folder, adapted.reader, adapted.labels)
            exported = Exported(kind, adapted.reader, adapted.labels, adapted.task, runner, scale)
            facts |= form.check(origin, exported, folder)
            found = certificate.difference(exported)
            if form.rounds:
                # Another processor may round other products up; a wrong graph is further off.
                certificate = replace(certificate, tolerance=max(2 * found, form.rounds * largest(certificate.logits)))
                certificate.save(folder)
            elif found > certificate.tolerance:
                raise ParityError(f"the export's logits differ by up to {found:.2g} from the run's; it was not kept")
        files = hashes_of(folder, names_below(folder, without=(RUN_MANIFEST, CARD)))
        write_whole(folder / RUN_MANIFEST, sealed(origin.manifest | {"files": files}))
    return {"format": kind, "to": str(out), "bytes": size_of(out), "base_bytes": adapted.base.weight_bytes} | facts
