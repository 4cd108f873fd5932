// Files that are either wholly there or not there at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace lockstep::datasets {

// Makes `final_path` a file of exactly `content`. The bytes go to a new file beside it, named
// "<name>.tmp-<host>-<pid>-<n>", which is synced and then renamed over `final_path`; the directory
// is synced last. Whoever opens `final_path` at any moment, also after a crash, sees the old file
// or the new one, and never a part.
//
// Throws std::system_error with the path, what failed and the system's reason. Until the rename
// nothing but the temporary file was touched, and it is removed; a killed process leaves it behind.
// If only the last sync of the directory fails, the new file is in place but may not survive a
// crash.
//
// `final_path` must not be a directory, device or other special file; a symbolic link is replaced
// by the file. Safe to call from many threads and processes, also for the same path: the last one
// wins. Local.
void write_file_atomically(const std::filesystem::path& final_path,
                           std::span<const std::byte> content);

}  // namespace lockstep::datasets
