"""What a user asks of a project: checked, written to the log, and then done."""

from typing import Any

from longsam.app import edits as prompting
from longsam.app.edits import Answer, Edit, ObjectId
from longsam.app.project import Passes, Project, is_over
from longsam.app.replay import reopen


class ConflictError(ValueError):
    """What is asked for cannot be done now."""


class Run(Project):
    """An open project, resumed where it stopped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tell("opening the project")
        reopen(self)
        self.tell(None)

    def prompt(self, obj_id: ObjectId, frame_idx: int, edits: list[Edit]) -> tuple[str, Answer]:
        """Make these all edits of an object on a frame.

        Raises:
            ValueError: They cannot be.
            ConflictError: Another frame is being corrected.
        """
        self._check_frame(frame_idx)
        prompting.check(edits, self.state.source.frame_size)
        before = self.prompts.get((obj_id, frame_idx), [])
        if edits == before:
            return self.masks(frame_idx)
        if not edits:
            self._check_can_clear(obj_id, frame_idx)
        self.pause()
        if self.correction is not None and frame_idx != self.correction.frame:
            first, last = self.correction.span
            if first <= frame_idx <= last or frame_idx in self.tracked:
                raise ConflictError(
                    f"frame {self.correction.frame} is being corrected. Track on from there, or "
                    "drop the correction, before another frame that was tracked is prompted."
                )
        elif self.correction is None and frame_idx in self.tracked:
            self.begin_correction(frame_idx)
        self.log.append({"op": "prompts", "object": obj_id, "frame": frame_idx, "edits": edits})
        self.apply_prompts(obj_id, frame_idx, edits)
        return self.masks(frame_idx)

    def remove(self, obj_id: ObjectId) -> None:
        """Remove an object; the masks that were tracked of it stay in the folder.

        Raises:
            ValueError: There is no such object.
            ConflictError: A frame is being corrected.
        """
        if obj_id not in self.state.obj_ids:
            raise ValueError(f"there is no object {obj_id}; there are {self.state.obj_ids}.")
        if self.correction is not None:
            raise ConflictError("keep the correction, or drop it, before an object is removed.")
        self.pause()
        self.log.append({"op": "remove", "object": obj_id})
        self.apply_remove(obj_id)
        self.needs_save = True

    def rename(self, obj_id: ObjectId, to: ObjectId) -> None:
        """Give an object that was not tracked yet another id.

        Raises:
            ValueError: There is no such object, or there is one of the new id.
            ConflictError: It was tracked.
        """
        if to in self.objects():
            raise ValueError(f"there is an object {to} already.")
        if obj_id in self.tracked.obj_ids or self.correction is not None:
            raise ConflictError(f"object {obj_id} has been tracked under this name, so it stays.")
        own = {frame: edits for (name, frame), edits in self.prompts.items() if name == obj_id}
        color = self.colors.get(obj_id)
        self.remove(obj_id)
        if color is not None:
            self.colors.pop(obj_id)
            self.colors[to] = color
        for frame_idx, edits in own.items():
            self.prompt(to, frame_idx, edits)

    def track(self, direction: str, start: int | None, end: int | None) -> None:
        """Begin to track.

        Args:
            direction: "forward", "reverse" or "both".
            start: The first frame; None is the first with a prompt, or where tracking stopped.
            end: The last frame; None is the end of the video.

        Raises:
            ValueError: There is nothing to track.
        """
        for frame_idx in (start, end):
            if frame_idx is not None:
                self._check_frame(frame_idx)
        if not self.prompts:
            raise ValueError("there is no object yet: click on one first.")
        self.pause()
        if self.correction is None and start is not None and start in self.tracked:
            self.begin_correction(start)
        if self.correction is not None:
            self._begin([self._correction_pass()])
            return
        passes = self._passes(direction, start, end)
        if not passes:
            raise ValueError(
                "all frames there are tracked. To track some again, go to one and prompt it, or "
                "start from it."
            )
        self._begin(passes)

    def resume(self) -> None:
        """Continue where tracking stopped, or track on from a correction.

        Raises:
            ValueError: Nothing was left off.
        """
        self.pause()
        if self.correction is not None:
            self._begin([self._correction_pass()])
        elif self.left:
            self._begin([list(one) for one in self.left])
        else:
            raise ValueError("no pass was left off.")

    def step(self) -> int | None:
        """Track one frame; None once all passes are over."""
        frame_idx = self.track_frame()
        if frame_idx is None and not self.is_running and self.correction is not None:
            self.keep()
            if self.left:
                self._begin([list(one) for one in self.left])
        return frame_idx

    def begin_correction(self, frame_idx: int) -> None:
        """Go back to a frame that was tracked.

        Raises:
            ValueError: That is not possible.
        """
        self.pause()
        self.save()
        self.log.append({"op": "correct", "frame": frame_idx})
        try:
            self.open_correction(frame_idx)
        except (ValueError, OSError):
            self.log.append({"op": "drop"})
            self.apply_drop()
            raise

    def keep(self) -> None:
        """Let the masks of a correction replace those before, as far as there are any.

        Raises:
            ConflictError: There is no correction.
        """
        if self.correction is None:
            raise ConflictError("no frame is being corrected.")
        self.pause()
        self._write_answer()
        self.log.append({"op": "keep", "at": self.correction.at})
        self.apply_keep()

    def drop(self) -> None:
        """Forget a correction: masks and prompts are as they were before.

        Raises:
            ConflictError: There is no correction.
        """
        if self.correction is None:
            raise ConflictError("no frame is being corrected.")
        self.pause()
        self.log.append({"op": "drop"})
        self.apply_drop()

    def _check_frame(self, frame_idx: int) -> None:
        if not 0 <= frame_idx < self.num_frames:
            raise ValueError(
                f"frame {frame_idx} is not in the video, which has frames 0 to "
                f"{self.num_frames - 1}."
            )

    def _check_can_clear(self, obj_id: ObjectId, frame_idx: int) -> None:
        others = [frame for name, frame in self.prompts if name == obj_id and frame != frame_idx]
        if not others and obj_id in self.tracked.obj_ids:
            raise ConflictError(
                f"this is the only prompt of object {obj_id}, which was tracked; give it another "
                "first, or remove the object."
            )

    def _passes(self, direction: str, start: int | None, end: int | None) -> Passes:
        prompted = sorted({frame_idx for _, frame_idx in self.prompts})
        first = start
        if first is None:
            first = prompted[-1] if direction == "reverse" else prompted[0]
        passes: Passes = []
        if direction != "reverse":
            begin = first
            if begin in self.tracked:
                begin = self.tracked.end_of_span(first, reverse=False) + 1
            last = end if end is not None and end >= first else self.num_frames - 1
            passes.append([begin, last, False])
        if direction != "forward":
            begin = first - 1 if direction == "both" else first
            if begin in self.tracked:
                begin = self.tracked.end_of_span(begin, reverse=True) - 1
            last = end if end is not None and end <= first else 0
            passes.append([begin, last, True])
        return [one for one in passes if not is_over(one)]

    def _correction_pass(self) -> list[Any]:
        """What is left of the correction."""
        assert self.correction is not None
        step = -1 if self.correction.reverse else 1
        if self.correction.at is not None:
            begin = self.correction.at + step
        else:
            is_prompted = any(frame == self.correction.frame for _, frame in self.prompts)
            begin = self.correction.frame + (step if is_prompted else 0)
        return [begin, self.correction.last, self.correction.reverse]

    def _begin(self, passes: Passes) -> None:
        self.log.append({"op": "track", "passes": [list(one) for one in passes]})
        self.apply_track(passes)
