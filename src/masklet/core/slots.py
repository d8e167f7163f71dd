"""What a segmenter of learnt queries (Mask2Former) says of a window of frames: one slot for each query."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FrameSlots:
    """The slots of t frames of one size. Slot n of one frame need not be slot n of the next: trackers align them;
    of a slot model it is.
    """

    queries: Float[Tensor, "t n c"]  # embeddings after the decoder's last norm; of a slot model, what `decode` takes
    class_logits: Float[Tensor, "t n k1"]  # of k classes, then of no object
    pixel_features: Float[Tensor, "t c h w"]  # an embedding dotted with them gives mask logits; stride 4
    mask_logits: Float[Tensor, "t n h w"]  # the segmenter's own; > 0: inside
    inside: tuple[int, int]  # h, w of the image in the padded input of 4 h x 4 w pixels; the rest is padding
