"""Encoders on a CPU through OpenVINO, quick where convolutions are depthwise. Importing it imports OpenVINO."""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dynacor_ray.core.errors import EncoderError, expected_got, first_line
from dynacor_ray.models.encoder import Encoder
from dynacor_ray.models.quiet_openvino import FrontEndManager, TorchScriptPythonDecoder, openvino
from dynacor_ray.models.torch_encoder import NetworkEncoder

BATCH = 8
"""Images that the network takes at once, always: on one core 1 and 64 take 3% longer per image."""
TOLERANCE = 1e-3
"""Most that features may differ from torch's, as a share of their norm."""
_PROBES = 2


class OpenVinoEncoder(Encoder):
    """The network of another encoder, compiled by OpenVINO for this CPU, in float32.

    Features of an image do not depend on the images beside it: every batch has the same size.

    Args:
        plain: the encoder, on the CPU.
        callers: threads that call `encode` at the same time, each of which gets one core.

    Raises:
        EncoderError: the network cannot be converted, or its features are others.
    """

    def __init__(self, plain: NetworkEncoder, callers: int = 1) -> None:
        self.image_size, self.dim = plain.image_size, plain.dim
        self._requests = threading.local()
        try:
            self._compiled = _compiled(plain.network, self.image_size, callers)
            difference = self._difference(plain)
        except Exception as error:  # of many kinds: anything that happens here is a network that does not fit
            raise _unfit(f"{type(error).__name__} ({first_line(error)})") from error
        if not difference <= TOLERANCE:
            raise _unfit(f"features that differ by {difference:.1%} from PyTorch's")

    def _difference(self, plain: NetworkEncoder) -> float:
        """Distance of the features of a few random images to those of `plain`, as a share of their norm."""
        shape = (_PROBES, self.image_size, self.image_size, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        theirs = plain.encode(images)
        return float(np.linalg.norm(self.encode(images) - theirs) / np.linalg.norm(theirs))

    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not hasattr(self._requests, "mine"):
            self._requests.mine = self._compiled.create_infer_request()
        features = np.empty((len(images), self.dim), np.float32)
        batch = np.zeros((BATCH, *images.shape[1:]), np.uint8)
        for first in range(0, len(images), BATCH):
            rows = images[first : first + BATCH]
            batch[: len(rows)] = rows
            found = self._requests.mine.infer([batch], share_inputs=True)[0]
            features[first : first + len(rows)] = found[: len(rows)]
        return features


def _compiled(network: torch.nn.Module, side: int, callers: int) -> Any:
    """Trace, convert and compile a network for batches of `BATCH` images.

    The frontend is called without `openvino.convert_model`, which sends statistics of its use over the network.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that become constants, which they are, and of torch.jit's age
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(_traced(network, side))  # the frontend does not keep it alive
        model = frontend.convert(frontend.load(decoder))
    model.inputs[0].get_node().set_element_type(openvino.Type.u8)
    model.reshape([BATCH, side, side, 3])
    options = {
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bfloat16 on processors that have it
        "NUM_STREAMS": callers,
        "INFERENCE_NUM_THREADS": callers,
        "ENABLE_CPU_PINNING": False,  # every process would take the first core
    }
    return _core().compile_model(model, "CPU", options)


@cache
def _core() -> Any:
    """The one of this process, which stays.

    Where a processor needs large signal frames (AVX-512, AMX), each gives the thread that makes it a stack for signal
    handlers, and takes it away at its end. Of two, the one that ends last leaves a stack behind that is no longer
    there, and Ctrl-C is a segmentation fault.
    """
    return openvino.Core()


def _traced(network: torch.nn.Module, side: int) -> Any:
    """The network as a graph, by one image. torch's fused attention has no form that could be converted."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
            return torch.jit.trace(network, image, check_trace=False)  # type: ignore[no-untyped-call]
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _unfit(got: str) -> EncoderError:
    return EncoderError(expected_got("a network that OpenVINO can run", got, "run it by PyTorch"))
