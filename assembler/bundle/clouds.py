"""A cloud of points to an array, the same for training and serving: numpy alone."""

from __future__ import annotations

import numpy as np

from assembler.bundle.manifest import PointsProcessor
from assembler.errors import AssemblerError


def points_array(points: np.ndarray, processor: PointsProcessor) -> tuple[np.ndarray, np.ndarray]:
    """float32 [points, 3 + extra] as the processor says, and the mask [points] of the real ones.

    Raises:
        AssemblerError: the cloud is empty, lacks channels, or holds what is no number.
    """
    wanted = 3 + processor.extra
    if points.ndim != 2 or points.shape[1] < wanted:
        raise AssemblerError(f"wants {wanted} numbers a point, got an array of {points.shape}; change `extra`")
    if not len(points):
        raise AssemblerError("wants at least one point, got an empty cloud")
    cloud = np.asarray(points[:, :wanted], np.float32)
    if not np.isfinite(cloud).all():
        raise AssemblerError("holds coordinates that are no finite numbers; clean the cloud")
    if processor.normalize == "sphere":
        cloud = np.concatenate([in_unit_sphere(cloud[:, :3]), cloud[:, 3:]], axis=1)
    cloud = cloud[_chosen(cloud[:, :3], processor)]
    lack = processor.points - len(cloud)
    mask = np.arange(processor.points) < len(cloud)
    return np.pad(cloud, ((0, lack), (0, 0))), mask


def in_unit_sphere(xyz: np.ndarray) -> np.ndarray:
    """(x - mean) / max |x - mean| of [N, 3]; a single place becomes the origin."""
    exact = xyz.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).max())
    return (centred / radius if radius > 0 else centred).astype(np.float32)


def _chosen(xyz: np.ndarray, processor: PointsProcessor) -> np.ndarray:
    """Indices of the points that are kept, in their own order but for "farthest"."""
    count, wanted = len(xyz), processor.points
    if count < wanted:
        return np.arange(wanted) * count // wanted if processor.short == "repeat" else np.arange(count)
    if processor.sample == "farthest":
        return farthest_points(xyz, wanted)
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])


def farthest_points(xyz: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points of [N, 3]: first the one farthest from the mean, then always the one farthest from all
    before it."""
    found = np.empty(count, np.int64)
    found[0] = ((xyz - xyz.mean(axis=0)) ** 2).sum(axis=1).argmax()
    best = np.full(len(xyz), np.inf, np.float32)
    for index in range(1, count):
        np.minimum(best, ((xyz - xyz[found[index - 1]]) ** 2).sum(axis=1), out=best)
        found[index] = best.argmax()
    return found
