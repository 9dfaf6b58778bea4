// SPDX-License-Identifier: Apache-2.0
#include "bundle/bundle.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/strict_json.h"

namespace posewire {
namespace {

constexpr std::size_t kMaxManifestBytes = std::size_t{4} << 20U;
constexpr std::size_t kChunkBytes = std::size_t{1} << 18U;
constexpr const char* kManifest = "manifest.json";

std::string reason(int number) {
  return number == ELOOP ? "is a link; a bundle holds regular files only"
                         : "cannot be read: " + std::string(std::strerror(number));
}

// A regular file that is not a link, opened relative to its folder so that nobody can swap the
// folder in between; a pipe or device never blocks the reader.
class File {
 public:
  File(int folder, const std::string& name, std::string shown_path)
      : shown_(std::move(shown_path)),
        descriptor_(
            ::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) {
    if (descriptor_ < 0) {
      throw Error(Code::kBundle, shown_, reason(errno));
    }
    struct stat info = {};
    if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(descriptor_);
      throw Error(Code::kBundle, shown_, "is not a regular file");
    }
    bytes_ = static_cast<std::uint64_t>(info.st_size);
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::uint64_t bytes() const noexcept { return bytes_; }

  // At most `most` bytes; 0 at the end.
  std::size_t read(char* data, std::size_t most) const {
    for (;;) {
      const ssize_t got = ::read(descriptor_, data, most);
      if (got >= 0) {
        return static_cast<std::size_t>(got);
      }
      if (errno != EINTR) {
        throw Error(Code::kBundle, shown_, reason(errno));
      }
    }
  }

 private:
  std::string shown_;
  int descriptor_;
  std::uint64_t bytes_ = 0;
};

class Folder {
 public:
  explicit Folder(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ < 0) {
      const char* what =
          errno == ENOENT    ? "does not exist; a bundle is a directory with a manifest.json"
          : errno == ENOTDIR ? "is not a directory; a bundle is a directory with a manifest.json"
                             : nullptr;
      throw Error(Code::kBundle, path, what != nullptr ? what : reason(errno));
    }
  }
  ~Folder() { ::close(descriptor_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  int descriptor() const noexcept { return descriptor_; }

  // Nothing lies in a bundle that its manifest does not list: no runtime picks up a neighbour.
  void refuse_unlisted(const Manifest& manifest) const {
    const int copy = ::dup(descriptor_);
    const std::unique_ptr<DIR, int (*)(DIR*)> list(copy < 0 ? nullptr : ::fdopendir(copy),
                                                   &::closedir);
    if (list == nullptr) {
      const int number = errno;
      if (copy >= 0) {
        ::close(copy);
      }
      throw Error(Code::kBundle, path_, reason(number));
    }
    while (const dirent* entry = ::readdir(list.get())) {  // NOLINT(concurrency-mt-unsafe)
      const std::string name = entry->d_name;
      if (name != "." && name != ".." && name != kManifest && name != "manifest.sig" &&
          manifest.files.count(name) == 0) {
        throw Error(Code::kBundle, path_,
                    "holds " + shown(name) + ", which manifest.json does not list");
      }
    }
  }

 private:
  std::string path_;
  int descriptor_;
};

std::string read_manifest(const File& file, const std::string& where) {
  std::string text(kMaxManifestBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const std::size_t got = file.read(&text[size], text.size() - size);
    if (got == 0) {
      break;
    }
    size += got;
  }
  if (size > kMaxManifestBytes) {
    throw Error(Code::kBundle, where,
                "is larger than " + std::to_string(kMaxManifestBytes) + " bytes");
  }
  text.resize(size);
  return text;
}

std::string digest_of(const File& file) {
  Sha256 digest;
  std::vector<char> chunk(kChunkBytes);
  while (const std::size_t got = file.read(chunk.data(), chunk.size())) {
    digest.add(chunk.data(), got);
  }
  return digest.hex();
}

}  // namespace

std::string sha256_of_file(const std::string& path) {
  return digest_of(File(AT_FDCWD, path, path));
}

Bundle open_bundle(const std::string& directory) {
  const Folder folder(directory);
  Bundle bundle;
  bundle.directory = directory;
  const std::string where = bundle.path(kManifest);
  const std::string text = read_manifest(File(folder.descriptor(), kManifest, where), where);
  bundle.sha256 = sha256_of(text.data(), text.size());
  bundle.manifest = parse_manifest(text, where);
  folder.refuse_unlisted(bundle.manifest);
  for (const auto& [name, entry] : bundle.manifest.files) {
    const std::string path = bundle.path(name);
    const File file(folder.descriptor(), name, path);
    if (file.bytes() != entry.bytes) {
      throw Error(Code::kBundle, path,
                  "has " + std::to_string(file.bytes()) + " bytes, the manifest says " +
                      std::to_string(entry.bytes));
    }
    if (digest_of(file) != entry.sha256) {
      throw Error(Code::kBundle, path,
                  "its sha256 is not the manifest's: damaged or tampered with");
    }
  }
  return bundle;
}

}  // namespace posewire
