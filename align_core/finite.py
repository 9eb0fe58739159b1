"""Logits that are not finite are no prediction: the argmax of NaN would be class 0."""

from collections.abc import Sequence

from torch import Tensor


def check_finite(logits_BK: Tensor, image_ids: Sequence[str], whose: str) -> None:
    """Raises FloatingPointError, naming the model and the images, where logits [B, K] are NaN or infinite.

    Args:
        logits_BK: of the images, in the order of `image_ids`.
        whose: the model that returned them.
    """
    finite_B = logits_BK.isfinite().all(dim=1)
    if not finite_B.all():
        names = [image_id for image_id, is_fine in zip(image_ids, finite_B.tolist(), strict=True) if not is_fine]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise FloatingPointError(f"the logits of {whose} are not finite for {', '.join(names[:5])}{more}")
