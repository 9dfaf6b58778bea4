// SPDX-License-Identifier: Apache-2.0
#include "io/aside_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace posewire {
namespace {

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

AsideFile::~AsideFile() { close(); }

void AsideFile::open(const std::string& path) {
  close();
  path_ = path;
  part_ = path + ".part";
  struct stat info {};
  if (path.empty() || path.back() == '/') {
    throw Error(Code::kCannotWrite, path, "the output needs a file name");
  }
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && !S_ISREG(info.st_mode)) {
    throw Error(Code::kCannotWrite, path, "exists and is not a regular file");
  }
  if (::stat(folder_of(path).c_str(), &info) != 0) {
    throw Error(Code::kCannotWrite, path,
                "folder " + folder_of(path) + ": " + std::strerror(errno));
  }
  if (exists && ::access(path.c_str(), W_OK) != 0) {
    throw Error(Code::kCannotWrite, path, std::strerror(errno));
  }
  // Not truncated before it is ours; a link in its place is not followed.
  fd_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (fd_ < 0) {
    throw Error(Code::kCannotWrite, part_, std::strerror(errno));
  }
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    close();
    throw Error(Code::kCannotWrite, path, "is being written by another process");
  }
  if (::ftruncate(fd_, 0) != 0) {
    const int error = errno;
    close();
    throw Error(Code::kCannotWrite, part_, std::strerror(error));
  }
}

Status AsideFile::write(const char* bytes, std::size_t count) {
  while (count > 0) {
    const ssize_t done = ::write(fd_, bytes, count);
    if (done < 0) {
      if (errno == EINTR) {
        continue;
      }
      return failure(errno);
    }
    bytes += done;
    count -= static_cast<std::size_t>(done);
  }
  return Status();
}

Status AsideFile::commit() {
  // The file before its name, the name before success: after a power cut it is the old or the new.
  if (::fsync(fd_) != 0 || std::rename(part_.c_str(), path_.c_str()) != 0) {
    Status failed = failure(errno);
    close();
    return failed;
  }
  close();
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    // Some file systems cannot sync a folder (EINVAL); the rename itself has happened.
    const bool failed = ::fsync(folder) != 0 && errno != EINVAL;
    const int error = errno;
    ::close(folder);
    if (failed) {
      return Status(Code::kCannotWrite, path_ + ": " + std::strerror(error));
    }
  }
  return Status();
}

void AsideFile::close() noexcept {
  if (fd_ >= 0) {
    ::close(fd_);
    fd_ = -1;
  }
}

void AsideFile::discard() noexcept {
  if (fd_ >= 0) {
    ::unlink(part_.c_str());  // still under the lock: it is ours
    close();
  }
}

Status AsideFile::failure(int error_number) const {
  return Status(Code::kCannotWrite,
                path_ + ": " + std::strerror(error_number) + "; what was written is in " + part_);
}

}  // namespace posewire
