"""Everything that differs between operating systems and machines. No formats, no network, no policy.

Linux is tested. The branches for macOS and Windows are written from their manuals and have not been run.
"""

from pophood.system.files import (
    atomic_write,
    disk_errors,
    disk_of,
    drop_pages,
    file_lock,
    free_disk,
    fsync_directory,
    map_file,
    rename,
    replace,
    size_text,
    sync_file,
    unique,
)
from pophood.system.machine import available_memory, default_threads, memory_text, physical_cores
from pophood.system.targets import check_writable_target
from pophood.system.usage import busy_seconds, cpu_info, others_seconds, peak_memory, processor_name
from pophood.system.user import (
    MISSING,
    check_folders,
    check_home,
    colour_ok,
    folder_fault,
    home,
    model_folders,
    nearest_folder,
    offline,
    unicode_ok,
)

__all__ = [
    "MISSING",
    "atomic_write",
    "available_memory",
    "busy_seconds",
    "check_folders",
    "check_home",
    "check_writable_target",
    "colour_ok",
    "cpu_info",
    "default_threads",
    "disk_errors",
    "disk_of",
    "drop_pages",
    "file_lock",
    "folder_fault",
    "free_disk",
    "fsync_directory",
    "home",
    "map_file",
    "memory_text",
    "model_folders",
    "nearest_folder",
    "offline",
    "others_seconds",
    "peak_memory",
    "physical_cores",
    "processor_name",
    "rename",
    "replace",
    "size_text",
    "sync_file",
    "unicode_ok",
    "unique",
]
