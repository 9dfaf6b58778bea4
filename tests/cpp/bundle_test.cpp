// SPDX-License-Identifier: Apache-2.0
// The corpus tests/golden/bundles is read here and by posewire/manifest.py's tests: one format, one
// reader's answer.
#include "bundle/bundle.h"

#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace posewire {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBundle) << error.what();
    return error.what();
  }
  return "";
}

std::vector<std::string> corpus() {
  std::vector<std::string> names;
  const std::string folder = std::string(POSEWIRE_GOLDEN) + "/bundles";
  const std::unique_ptr<DIR, int (*)(DIR*)> list(::opendir(folder.c_str()), &::closedir);
  while (const dirent* entry = list == nullptr ? nullptr : ::readdir(list.get())) {
    const std::string name = entry->d_name;
    if (name.size() > 5 && name.substr(name.size() - 5) == ".json") {
      names.push_back(folder + "/" + name);
    }
  }
  return names;
}

json good_manifest() {
  return json::parse(read_text(std::string(POSEWIRE_GOLDEN) + "/bundles/good.json"))["manifest"];
}

TEST(Manifest, AgreesWithTheCorpus) {
  const std::vector<std::string> files = corpus();
  ASSERT_GE(files.size(), 20U);
  for (const std::string& file : files) {
    const json entry = json::parse(read_text(file));
    const std::string expected = entry["error"];
    const std::string got =
        error_of([&] { parse_manifest(entry["manifest"].dump(), "m/manifest.json"); });
    if (expected.empty()) {
      EXPECT_EQ(got, "") << file;
    } else {
      EXPECT_THAT(got, ::testing::StartsWith("m/manifest.json: ")) << file;
      EXPECT_THAT(got, HasSubstr(expected)) << file;
      EXPECT_THAT(got, ::testing::Not(HasSubstr("\n"))) << file;
    }
  }
}

TEST(Manifest, ReadsEveryField) {
  const json raw = good_manifest();
  const Manifest manifest = parse_manifest(raw.dump(), "m");
  EXPECT_EQ(manifest.name, raw["name"]);
  EXPECT_EQ(manifest.skeleton.count(), static_cast<int>(raw["skeleton"]["keypoints"].size()));
  EXPECT_EQ(manifest.skeleton.limbs.size(), raw["skeleton"]["limbs"].size());
  EXPECT_EQ(manifest.skeleton.flips, raw["skeleton"]["flips"].get<std::vector<int>>());
  EXPECT_EQ(manifest.input_width, raw["input"]["width"]);
  EXPECT_EQ(manifest.input_height, raw["input"]["height"]);
  EXPECT_TRUE(manifest.input_rgb);
  EXPECT_EQ(manifest.algorithm, raw["decode"]["algorithm"]);
  EXPECT_EQ(manifest.decode, raw["decode"]);
  EXPECT_EQ(manifest.artifacts.size(), raw["artifacts"].size());
  EXPECT_EQ(manifest.files.size(), raw["files"].size());
  EXPECT_FALSE(manifest.target.has_value());
}

TEST(Manifest, PutsArtifactOutputsInTheManifestsOrder) {
  json raw = good_manifest();
  auto& outputs = raw["artifacts"][0]["outputs"];
  std::reverse(outputs.begin(), outputs.end());
  const Manifest manifest = parse_manifest(raw.dump(), "m");
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    EXPECT_EQ(manifest.artifacts[0].outputs[i].name, manifest.outputs[i].name);
  }
}

TEST(Manifest, PartialNeedsOnlyWhatADecoderNeeds) {
  json raw = good_manifest();
  for (const char* key : {"schema", "name", "version", "artifacts", "target", "gate", "accuracy",
                          "training", "derived_from", "files"}) {
    raw.erase(key);
  }
  EXPECT_THAT(error_of([&] { parse_manifest(raw.dump(), "m"); }), HasSubstr("is missing"));
  raw["outputs"][0]["layout"] = "NHWC";
  const Manifest manifest = parse_manifest(raw.dump(), "m", true);
  EXPECT_EQ(manifest.outputs[0].layout, Layout::kNHWC);
  EXPECT_EQ(manifest.outputs[1].layout, Layout::kNCHW);
  raw["outputs"][0]["layout"] = "CHW";
  EXPECT_THAT(error_of([&] { parse_manifest(raw.dump(), "m", true); }),
              HasSubstr("outputs[0].layout"));
}

TEST(Manifest, PartialWithoutAModeIsBottomUpAndWithoutACropTopDown) {
  json raw = good_manifest();
  raw.erase("mode");
  raw["input"] = {{"width", 64}, {"height", 32}};
  const Manifest manifest = parse_manifest(raw.dump(), "m", true);
  EXPECT_EQ(manifest.mode, Mode::kBottomUp);
  EXPECT_EQ(manifest.input_width, 64);
  raw["mode"] = "top_down";
  EXPECT_EQ(parse_manifest(raw.dump(), "m", true).mode, Mode::kTopDown);
  raw["mode"] = "bottom_up";
  raw["crop"] = {{"padding", 1.25}, {"fit", "letterbox"}};
  EXPECT_THAT(error_of([&] { parse_manifest(raw.dump(), "m", true); }), HasSubstr("crop"));
  raw.erase("crop");
  raw["input"].erase("height");
  EXPECT_THAT(error_of([&] { parse_manifest(raw.dump(), "m", true); }), HasSubstr("input.height"));
  for (const char* key : {"mode", "input"}) {  // a bundle's own is held to all of it
    raw = good_manifest();
    key == std::string("mode") ? raw.erase(key) : raw[key].erase("resize");
    EXPECT_THAT(error_of([&] { parse_manifest(raw.dump(), "m"); }), HasSubstr("is missing"));
  }
}

TEST(Manifest, BoundsCountsAndSizes) {
  const auto error = [](const json& raw) {
    return error_of([&] { parse_manifest(raw.dump(), "m"); });
  };
  json raw = good_manifest();
  for (int i = 0; i < 64; ++i) {
    raw["files"]["f" + std::to_string(i)] = raw["files"].begin().value();
  }
  EXPECT_THAT(error(raw), HasSubstr("files: must list at most 64"));
  raw = good_manifest();
  raw["files"]["big"] = raw["files"].begin().value();
  raw["files"]["big"]["bytes"] = 1LL << 30;
  EXPECT_THAT(error(raw), HasSubstr("in all"));
  raw["files"]["big"]["bytes"] = (1LL << 30) + 1;
  EXPECT_THAT(error(raw), HasSubstr("files.big.bytes"));
  raw = good_manifest();
  raw["skeleton"]["keypoints"] = json::array();
  for (int i = 0; i < 1025; ++i) {
    raw["skeleton"]["keypoints"].push_back("k" + std::to_string(i));
  }
  EXPECT_THAT(error(raw), HasSubstr("skeleton.keypoints: must have at most 1024"));
}

// Any damage to the bytes ends in a manifest or in one clear line, never in anything else.
TEST(Manifest, SurvivesRandomDamage) {
  const std::string good = good_manifest().dump();
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (unsigned edits = 1 + random() % 4; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 40);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 40));
      }
    }
    EXPECT_THAT(error_of([&] { parse_manifest(text, "m"); }), ::testing::Not(HasSubstr("\n")));
  }
}

// A good bundle in a fresh folder, to be damaged.
class OpenBundle : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "bundleXXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    manifest_ = good_manifest();
    for (auto& [name, entry] : manifest_["files"].items()) {
      const std::string bytes = "weights of " + name;
      write_text(folder_ + "/" + name, bytes);
      entry["bytes"] = bytes.size();
      entry["sha256"] = sha256_of(bytes.data(), bytes.size());
    }
    name_ = manifest_["files"].begin().key();
    write_manifest();
  }
  void TearDown() override {
    const std::string command = "rm -rf '" + folder_ + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  void write_manifest() const { write_text(folder_ + "/manifest.json", manifest_.dump()); }
  std::string path() const { return folder_ + "/" + name_; }
  std::string error() const {
    return error_of([&] { open_bundle(folder_); });
  }

  std::string folder_, name_;
  json manifest_;
};

TEST_F(OpenBundle, AcceptsAGoodOne) {
  const Bundle bundle = open_bundle(folder_);
  const std::string text = manifest_.dump();
  EXPECT_EQ(bundle.sha256, sha256_of(text.data(), text.size()));
  EXPECT_EQ(bundle.path(name_), path());
  write_text(folder_ + "/manifest.sig", "a signature is not this reader's business");
  EXPECT_EQ(error(), "");
}

TEST_F(OpenBundle, NamesAMissingDirectoryOrManifest) {
  EXPECT_THAT(error_of([&] { open_bundle(folder_ + "/no"); }), HasSubstr("does not exist"));
  EXPECT_THAT(error_of([&] { open_bundle(path()); }), HasSubstr("is not a directory"));
  ASSERT_EQ(::unlink((folder_ + "/manifest.json").c_str()), 0);
  EXPECT_THAT(error(), HasSubstr("/manifest.json: cannot be read: No such file"));
}

TEST_F(OpenBundle, NamesADamagedFile) {
  const std::string good = read_text(path());
  write_text(path(), good + "x");
  EXPECT_THAT(error(), HasSubstr(path() + ": has " + std::to_string(good.size() + 1) + " bytes"));
  std::string flipped = good;
  flipped[3] = static_cast<char>(flipped[3] ^ 1);
  write_text(path(), flipped);
  EXPECT_THAT(error(), HasSubstr(path() + ": its sha256 is not the manifest's"));
  ASSERT_EQ(::unlink(path().c_str()), 0);
  EXPECT_THAT(error(), HasSubstr(path() + ": cannot be read"));
}

TEST_F(OpenBundle, RefusesAnythingButRegularFiles) {
  const std::string aside = folder_ + ".aside";
  ASSERT_EQ(::rename(path().c_str(), aside.c_str()), 0);
  ASSERT_EQ(::symlink(aside.c_str(), path().c_str()), 0);
  EXPECT_THAT(error(), HasSubstr(path() + ": is a link"));
  ASSERT_EQ(::unlink(path().c_str()), 0);
  ASSERT_EQ(::mkdir(path().c_str(), 0700), 0);
  EXPECT_THAT(error(), HasSubstr(path() + ": is not a regular file"));
  ASSERT_EQ(::rmdir(path().c_str()), 0);
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  EXPECT_THAT(error(), HasSubstr(path() + ": is not a regular file"));
  ASSERT_EQ(::unlink(aside.c_str()), 0);
}

TEST_F(OpenBundle, RefusesWhatTheManifestDoesNotList) {
  write_text(folder_ + "/weights.bin", "external data");
  EXPECT_THAT(error(), HasSubstr("holds weights.bin, which manifest.json does not list"));
}

TEST_F(OpenBundle, BoundsTheManifest) {
  write_text(folder_ + "/manifest.json", std::string((4U << 20U) + 1, ' '));
  EXPECT_THAT(error(), HasSubstr("is larger than"));
}

TEST(Sha256, KnowsTheStandardsExamples) {
  EXPECT_EQ(sha256_of("abc", 3),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace posewire
