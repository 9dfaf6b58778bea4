// SPDX-License-Identifier: Apache-2.0
// The plug-in on a real device: streams, pinned memory, graphs, the letterbox, float16 and peaks.
// Only TensorRT is the tests' fake, whose network is a kernel of ours; so this shows nothing of
// TensorRT itself.
#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <thread>

#include "gpu_check.h"
#include "infer/plugin_abi.h"
#include "infer/preprocess.h"
#include "tensorrt/fake_network.h"
#include "tensorrt/host_kernels.h"

namespace posewire::test {
namespace {

constexpr int kWidth = 432, kHeight = 368, kWide = 54, kHigh = 46, kMaxBatch = 4, kRequests = 3;
constexpr std::size_t kPicture = static_cast<std::size_t>(kWidth) * kHeight * 3;
constexpr std::size_t kCells = static_cast<std::size_t>(3) * kWide * kHigh;

// A network that was opened, closed at the end of the scope.
class Opened {
 public:
  Opened(const Plugin& plugin, const PluginNetwork& network) : plugin(plugin) {
    PluginText why{};
    if (plugin.open(&network, &state, &why) != 0) {
      finding("plug-in opens", false, std::string("\"why\": \"") + why.text + "\"");
      std::exit(1);
    }
  }
  ~Opened() { plugin.close(state); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  std::uint8_t* picture(int request, int index) const {
    return static_cast<std::uint8_t*>(plugin.input(state, request)) +
           kPicture * static_cast<std::size_t>(index);
  }
  void good(std::int32_t code, const PluginText& why) const {
    if (code != 0) {
      finding("plug-in runs", false, std::string("\"why\": \"") + why.text + "\"");
      std::exit(1);
    }
  }
  void start(int request, int batch) const {
    PluginText why{};
    good(plugin.start(state, request, batch, &why), why);
  }
  void wait(int request) const {
    PluginText why{};
    good(plugin.wait(state, request, &why), why);
  }
  void letterbox(int request, int index, const PluginFrame& frame) const {
    PluginText why{};
    good(plugin.letterbox(state, request, index, &frame, &why), why);
  }

  const Plugin& plugin;
  PluginState* state = nullptr;
};

std::vector<float> expected_means(const std::uint8_t* picture, float times) {
  std::vector<float> means(kCells);
  CellMeans job;
  job.input = picture;
  job.width = kWidth;
  job.height = kHeight;
  job.output = means.data();
  job.cells_wide = kWide;
  job.cells_high = kHigh;
  job.times = times;
  job.batch = 1;
  for (std::size_t i = 0; i < kCells; ++i) {
    cell_mean(job, static_cast<int>(i));
  }
  return means;
}

struct Worst {
  double mean = 0.0, half = 0.0;
  long compared = 0;
};

// Output 0 is float32, output 1 the double of it, converted to float16 on the device.
void compare(const Opened& opened, int request, int index, const std::uint8_t* picture,
             Worst* worst) {
  const std::vector<float> expected = expected_means(picture, 1.0F);
  const std::size_t first = static_cast<std::size_t>(index) * kCells;
  const auto* means =
      static_cast<const float*>(opened.plugin.output(opened.state, request, 0)) + first;
  const auto* twice =
      static_cast<const std::uint16_t*>(opened.plugin.output(opened.state, request, 1)) + first;
  for (std::size_t i = 0; i < kCells; ++i) {
    worst->mean = std::max(worst->mean, std::abs(static_cast<double>(means[i] - expected[i])));
    const float half = from_half_bits(to_half_bits(2.0F * expected[i]));
    worst->half =
        std::max(worst->half, std::abs(static_cast<double>(from_half_bits(twice[i]) - half)));
  }
  ++worst->compared;
}

std::string launches(const Opened& opened) {
  std::int64_t graphs = 0, plain = 0;
  opened.plugin.launches(opened.state, &graphs, &plain);
  return "\"graph_launches\": " + std::to_string(graphs) +
         ", \"plain_launches\": " + std::to_string(plain);
}

// A thread fills and starts, another waits and compares, as the engine's do; batch sizes repeat
// and change.
void check_slots(const Opened& opened) {
  constexpr int kBatches[] = {4, 4, 4, 4, 4, 4, 1, 1, 1, 1, 1, 2, 3, 4, 4, 4, 4, 4};
  Worst worst;
  unsigned seed = 1;
  for (const int batch : kBatches) {
    std::vector<std::uint8_t> pictures[kRequests];
    for (int request = 0; request < kRequests; ++request) {
      pictures[request] = random_bytes(kPicture * static_cast<std::size_t>(batch), seed++);
      std::memcpy(opened.picture(request, 0), pictures[request].data(), pictures[request].size());
      opened.start(request, batch);
    }
    std::thread([&] {
      for (int request = 0; request < kRequests; ++request) {
        opened.wait(request);
        for (int i = 0; i < batch; ++i) {
          compare(opened, request, i,
                  pictures[request].data() + kPicture * static_cast<std::size_t>(i), &worst);
        }
      }
    }).join();
  }
  std::int64_t graphs = 0, plain = 0;
  opened.plugin.launches(opened.state, &graphs, &plain);
  char detail[200];
  std::snprintf(detail, sizeof(detail),
                "\"max_difference\": %g, \"max_difference_float16\": %g, \"pictures\": %ld, ",
                worst.mean, worst.half, worst.compared);
  // The means are sums of bytes: exact, also as float16.
  finding("3 requests in flight, batches of 1 to 4",
          worst.mean == 0.0 && worst.half <= 0.0 && graphs > 0 && plain > 0,
          detail + launches(opened));
}

PluginFrame frame_of(const std::vector<std::uint8_t>& frame, int width, int height) {
  const Letterbox box = letterbox_of(width, height, kWidth, kHeight);
  PluginFrame to{};
  to.planes[0] = frame.data();
  to.stride_bytes[0] = static_cast<std::size_t>(width) * 3;
  to.frame_width = width;
  to.frame_height = height;
  to.left = box.left;
  to.top = box.top;
  to.width = box.width;
  to.height = box.height;
  return to;
}

std::vector<std::uint8_t> host_letterboxed(const PluginFrame& frame) {
  std::vector<std::uint8_t> picture(kPicture);
  LetterboxJob job;
  job.planes[0] = frame.planes[0];
  job.stride_bytes[0] = frame.stride_bytes[0];
  job.frame_width = frame.frame_width;
  job.frame_height = frame.frame_height;
  job.left = frame.left;
  job.top = frame.top;
  job.width = frame.width;
  job.height = frame.height;
  job.to.data = picture.data();
  job.to.width = kWidth;
  job.to.height = kHeight;
  host_letterbox(job);
  return picture;
}

// Pictures of one batch from the CPU and from the device, and frames whose size changes.
void check_letterboxed(const Opened& opened) {
  constexpr int kSizes[][2] = {{640, 480}, {1920, 1080}, {433, 371}};
  Worst worst;
  unsigned seed = 100;
  for (const auto& size : kSizes) {
    const auto width = static_cast<std::size_t>(size[0]);
    std::vector<std::uint8_t> frame =
        random_bytes(width * static_cast<std::size_t>(size[1]) * 3, seed++);
    const std::vector<std::uint8_t> by_cpu = random_bytes(kPicture, seed++);
    const PluginFrame to = frame_of(frame, size[0], size[1]);
    const std::vector<std::uint8_t> expected = host_letterboxed(to);
    std::memcpy(opened.picture(0, 1), by_cpu.data(), kPicture);
    opened.letterbox(0, 0, to);
    opened.letterbox(0, 2, to);
    std::fill(frame.begin(), frame.end(), std::uint8_t{0});  // it may go at once
    opened.start(0, 3);
    opened.wait(0);
    compare(opened, 0, 0, expected.data(), &worst);
    compare(opened, 0, 1, by_cpu.data(), &worst);
    compare(opened, 0, 2, expected.data(), &worst);
  }
  char detail[200];
  std::snprintf(detail, sizeof(detail), "\"max_difference\": %g, \"pictures\": %ld", worst.mean,
                worst.compared);
  finding("frames letterboxed on the device", worst.mean == 0.0, detail);
}

using Clock = std::chrono::steady_clock;
double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// One request after the other, one picture each: what a start costs the engine's thread with and
// without a graph, and how long a batch takes from start to done.
void time_starts(const Opened& opened, const char* name) {
  std::vector<double> starting, done;
  for (int i = 0; i < (quick() ? 8 : 400); ++i) {
    const auto begin = Clock::now();
    opened.start(0, 1);
    starting.push_back(us_since(begin));
    opened.wait(0);
    done.push_back(us_since(begin));
  }
  std::sort(starting.begin(), starting.end());
  std::sort(done.begin(), done.end());
  char detail[200];
  std::snprintf(detail, sizeof(detail),
                "\"start_microseconds\": %.2f, \"done_microseconds\": %.2f, ",
                starting[starting.size() / 2], done[done.size() / 2]);
  finding(name, true, detail + launches(opened));
}

// Alternating batches of 1 and 2 never repeat: every start is put on the stream piece by piece.
void time_without_graphs(const Opened& opened) {
  std::vector<double> starting;
  for (int i = 0; i < (quick() ? 8 : 400); ++i) {
    const auto begin = Clock::now();
    opened.start(0, 1 + i % 2);
    starting.push_back(us_since(begin));
    opened.wait(0);
  }
  std::sort(starting.begin(), starting.end());
  char detail[200];
  std::snprintf(detail, sizeof(detail), "\"start_microseconds\": %.2f, ",
                starting[starting.size() / 2]);
  finding("starts without a graph", true, detail + launches(opened));
}

// A 1080p frame through staging, upload and kernel, against the upload of a picture alone.
void time_letterbox(const Opened& opened) {
  const std::vector<std::uint8_t> frame = random_bytes(1920 * 1080 * 3, 5);
  const PluginFrame to = frame_of(frame, 1920, 1080);
  std::vector<double> call, done;
  for (int i = 0; i < (quick() ? 4 : 200); ++i) {
    const auto begin = Clock::now();
    opened.letterbox(0, 0, to);
    call.push_back(us_since(begin));
    opened.start(0, 1);
    opened.wait(0);
    done.push_back(us_since(begin));
  }
  std::sort(call.begin(), call.end());
  std::sort(done.begin(), done.end());
  const auto begin = Clock::now();
  constexpr int kRounds = 5;
  for (int i = 0; i < kRounds; ++i) {
    host_letterboxed(to);
  }
  char detail[250];
  std::snprintf(detail, sizeof(detail),
                "\"call_microseconds\": %.1f, \"done_microseconds\": %.1f, "
                "\"same_loop_on_one_core_microseconds\": %.1f",
                call[call.size() / 2], done[done.size() / 2], us_since(begin) / kRounds);
  finding("a 1920x1080 frame from the CPU's memory, letterboxed on the device", true, detail);
}

void check_peaks(const Plugin& plugin, PluginNetwork network) {
  network.peaks = {0, 130.0F, 64};
  const Opened opened(plugin, network);
  long differ = 0, all = 0;
  for (int round = 0; round < 6; ++round) {
    const std::vector<std::uint8_t> pictures =
        random_bytes(2 * kPicture, 900 + static_cast<unsigned>(round));
    std::memcpy(opened.picture(1, 0), pictures.data(), pictures.size());
    opened.start(1, 2);
    opened.wait(1);
    for (int i = 0; i < 2; ++i) {
      const std::vector<float> means =
          expected_means(pictures.data() + kPicture * static_cast<std::size_t>(i), 1.0F);
      std::int32_t counts[3] = {0, 0, 0};
      std::vector<DevicePeak> peaks(3 * 64);
      PeakJob job;
      job.maps = means.data();
      job.planes = 3;
      job.height = kHigh;
      job.width = kWide;
      job.threshold = 130.0F;
      job.max_peaks = 64;
      job.counts = counts;
      job.peaks = peaks.data();
      host_peaks(job);
      const std::int32_t* found_counts = nullptr;
      const void* list = nullptr;
      plugin.peaks(opened.state, 1, i, &found_counts, &list);
      const auto* found = static_cast<const DevicePeak*>(list);
      for (int c = 0; c < 3; ++c) {
        differ += counts[c] != found_counts[c] ? 1 : 0;
        all += counts[c];
        for (int k = 0; k < std::min(counts[c], 64); ++k) {
          const auto at = static_cast<std::size_t>(c * 64 + k);
          differ += peaks[at].cell != found[at].cell || peaks[at].centre != found[at].centre ||
                            !(peaks[at].left == found[at].left || std::isnan(found[at].left))
                        ? 1
                        : 0;
        }
      }
    }
  }
  finding("peaks through the plug-in",
          differ == 0 && all > 0 && plugin.output(opened.state, 1, 0) == nullptr,
          "\"differ\": " + std::to_string(differ) + ", \"peaks\": " + std::to_string(all) + ", " +
              launches(opened));
}

}  // namespace

void check_plugin(const std::string& file) {
  void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    finding("plug-in loads", false, std::string("\"why\": \"") + ::dlerror() + "\"");
    return;
  }
  const Plugin& plugin = *reinterpret_cast<PluginEntry>(::dlsym(library, kPluginEntry))();
  PluginProbe probe{};
  plugin.probe(&probe);
  finding("plug-in finds the device", probe.code == 0,
          std::string("\"device\": \"") + probe.device + "\", \"built_with\": \"" +
              plugin.built_with + "\", \"why\": \"" + probe.why.text + "\"");

  const std::string plan = file + ".plan";
  std::ofstream(plan) << "posewire-fake-plan 1\nprofile 1 4\n"
                         "input image uint8 ? 368 432 3\n"
                         "output mean float32 1 ? 3 46 54\n"
                         "output twice float32 2 ? 3 46 54\nend\n";
  const PluginOutput outputs[] = {{"mean", 3, kHigh, kWide, 0, 0, 0},
                                  {"twice", 3, kHigh, kWide, 0, 0, 1}};
  PluginNetwork network{};
  network.plan = plan.c_str();
  network.input_name = "image";
  network.width = kWidth;
  network.height = kHeight;
  network.rgb = 1;
  network.outputs = outputs;
  network.output_count = 2;
  network.max_batch = kMaxBatch;
  network.requests = kRequests;
  network.peaks = {-1, 0.0F, 0};
  {
    const Opened opened(plugin, network);
    check_slots(opened);
    check_letterboxed(opened);
    time_without_graphs(opened);
  }
  {
    const Opened opened(plugin, network);
    time_starts(opened, "starts with a graph");
    time_letterbox(opened);
  }
  check_peaks(plugin, network);
  ::unlink(plan.c_str());
}

}  // namespace posewire::test

int main(int count, char** arguments) {
  cudaDeviceProp properties{};
  posewire::test::must(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  posewire::test::quick() = count > 2 && std::string(arguments[2]) == "quick";
  posewire::test::check_kernels();
  if (count > 1) {
    posewire::test::check_plugin(arguments[1]);
  }
  std::printf("{\"device\": \"%s\", \"failures\": %d}\n", properties.name,
              posewire::test::failures());
  return posewire::test::failures() == 0 ? 0 : 1;
}
