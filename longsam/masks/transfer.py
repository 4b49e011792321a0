"""Masks on their way from the GPU, copied while it computes the next ones."""

import torch


class ToCpu:
    """A tensor on its way to the CPU; from a GPU it is copied while the GPU computes."""

    _streams: dict[torch.device, torch.cuda.Stream] = {}  # noqa: RUF012 (one for all writers)

    def __init__(self, tensor: torch.Tensor):
        self._tensor = tensor.detach()
        self._is_copied: torch.cuda.Event | None = None
        if tensor.is_cuda:
            if tensor.device not in self._streams:
                new_stream = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
                self._streams[tensor.device] = new_stream
            stream = self._streams[tensor.device]
            stream.wait_stream(torch.cuda.current_stream(tensor.device))
            with torch.cuda.stream(stream):
                self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                    tensor, non_blocking=True
                )
                tensor.record_stream(stream)
                self._is_copied = stream.record_event()

    def get(self) -> torch.Tensor:
        """Wait for it."""
        if self._is_copied is not None:
            self._is_copied.synchronize()
        return self._tensor.cpu()
