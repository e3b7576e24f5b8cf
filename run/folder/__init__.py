"""A run's folder on disk: cached stages, the metrics log, the lock, content hashes."""

from run.folder.hashes import file_hash, folder_hash, hash_of_files, sha256
from run.folder.lock import locked
from run.folder.metrics_log import MetricsLog, read_metrics
from run.folder.stage import Stage
from run.folder.version import commit

__all__ = ["MetricsLog", "Stage", "commit", "file_hash", "folder_hash", "hash_of_files", "locked", "read_metrics", "sha256"]
