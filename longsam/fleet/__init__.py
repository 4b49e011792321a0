"""Many videos on many GPUs or CPUs, and one video on several (extra `fleet`)."""

from longsam.fleet.data import TrackVideos
from longsam.fleet.engine import Workers
from longsam.fleet.jobs import Job, Settings, read_jobs
from longsam.fleet.run import Row, track_videos
from longsam.fleet.together import track_together

__all__ = [
    "Job",
    "Row",
    "Settings",
    "TrackVideos",
    "Workers",
    "read_jobs",
    "track_together",
    "track_videos",
]
