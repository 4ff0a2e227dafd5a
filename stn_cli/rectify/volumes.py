"""Rectifying volumes: the same steps as of images, one volume after the other, with torch's sampler."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from stn_cli.engines.engine import Engine, Location
from stn_cli.errors import DeviceError, ModelError, StorageError
from stn_cli.geometry import Affine3d, Quality, corners, pixel_points, qualities, volume_size
from stn_cli.images import Staged, read_file, stage, withdraw
from stn_cli.images.channels import grey
from stn_cli.images.volumes import Volume, Voxels, decode_volume, encode_volume
from stn_cli.rectify.crop import Decision, natural_size, why_not
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.outcome import Group, Provenance, failed, failed_record, output_record, skipped_record
from stn_cli.rectify.plan import Job
from stn_cli.rectify.record import Record, SourceRecord, complete, describe_all, path_text
from stn_cli.sampling.kinds import LONGEST_SHOWN
from stn_cli.sampling.volumes import crop, shown

_HALF_A_VOXEL = 0.5


class VolumePipeline:
    """Runs jobs through an engine; see `pipeline.Pipeline`."""

    def __init__(self, engine: Engine, options: RectifyOptions) -> None:
        self.engine, self.options = engine, options
        self.origin = Provenance.of(engine.checkpoint, options)

    def run(self, jobs: Sequence[Job]) -> Group:
        """The crops of some jobs, written and ready to be committed.

        Failures of single inputs become records. Raises StorageError or ModelError for what concerns all of them, and
        leaves nothing behind then.
        """
        done = Group([], [], [])
        try:
            for job in jobs:
                record, written = self._finish(job)
                done.records.append(record)
                done.staged.extend([written] if written is not None else [])
        except BaseException:
            withdraw(done.staged)
            raise
        return done

    def _finish(self, job: Job) -> tuple[Record, Staged | None]:
        try:
            done = self.origin.why_left(job, self.options)
            if done is not None:
                return skipped_record(job, done), None
            file = read_file(job.source.path)
            volume = decode_volume(file, max_voxels=self.options.max_pixels)
        except Exception as error:  # whatever a decoder does is the failure of its file
            return failed_record(job, self.origin, error), None
        record = Record(source=_source(job, volume), status="failed", **self.origin._asdict())
        try:
            location, decision = locate(self.engine, volume.voxels, self.options)
            is_copied = decision.unchanged is not None and self.options.size is None and volume.format == job.format
            rectified = rendered(volume.voxels, decision, self.options)
            data = file.data if is_copied else encode_volume(rectified, job.format)
            complete(record, location, decision, *describe_all([location], [decision], [volume.voxels.shape]))
            record.output = output_record(job, decision.size, data)
            return record, stage(job.target, data)
        except (StorageError, ModelError, DeviceError):
            raise
        except Exception as error:  # whatever happens to one volume must not end the run
            return failed(record, error), None


def locate(engine: Engine, voxels: Voxels, options: RectifyOptions) -> tuple[Location, Decision]:
    """What a model says of a volume, and what is to be done with it."""
    try:
        located = engine.locate([shown(voxels, LONGEST_SHOWN)[..., None]], [voxels.shape])
    except engine.out_of_memory as error:
        raise DeviceError("the device has not enough memory for a single volume") from error
    (location,) = located
    found = cast("Affine3d", location.transform)
    (quality,) = qualities(found[None])
    reason = _why_unchanged(found, location.confidence, quality, voxels.shape, engine, options)
    if reason is not None:
        return location, Decision(Affine3d.identity(), options.size or voxels.shape, quality, reason)
    return location, Decision(
        found, options.size or natural_size(volume_size(found, voxels.shape), voxels.shape), quality, None
    )


def rendered(voxels: Voxels, decision: Decision, options: RectifyOptions) -> Voxels:
    """The crop; of a volume that passes through at its own size, the volume itself."""
    if decision.unchanged is not None and decision.size == voxels.shape:
        return voxels
    transform = cast("Affine3d", decision.transform)
    fill = options.fill if options.fill == "border" else (_grey(options.fill, voxels),)
    return cast("Voxels", crop(voxels, transform, decision.size, resample=options.resample or "auto", fill=fill))


def _why_unchanged(
    found: Affine3d,
    confidence: float,
    quality: Quality,
    size: tuple[int, ...],
    engine: Engine,
    options: RectifyOptions,
) -> str | None:
    reason = why_not(confidence, quality, options, engine.checkpoint.header)
    if reason is not None or options.always:
        return reason
    cube = corners(3)
    moved = np.abs(pixel_points(found(cube) - cube - 1.0, size)).max()
    if moved < _HALF_A_VOXEL:
        return "it is straight already: the predicted transform is the identity within half a voxel"
    return None


def _grey(fill: tuple[float, ...], voxels: Voxels) -> float:
    """A colour as the grey of a volume, black its least value and white its largest."""
    low, high = float(voxels.min()), float(voxels.max())
    return low + grey(fill) / 255 * (high - low)


def _source(job: Job, volume: Volume) -> SourceRecord:
    depth, height, width = volume.voxels.shape
    return SourceRecord(
        path=path_text(job.source.path),
        sha256=volume.sha256,
        bytes=volume.file_size,
        width=width,
        height=height,
        depth=depth,
        format=volume.format,
        mode=volume.voxels.dtype.name,
    )
