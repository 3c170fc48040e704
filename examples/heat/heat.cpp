// The solver of heat.py as a program without dependencies, for use as a shell task:
//   heat --diffusivity 0.05 --source-x 0.3 --source-y 0.6 [--kind eigenmode] [--power 4] --json
// prints one JSON object with the keys that solve() of heat.py returns.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kWidth = 0.08;  // of the Gaussian source, in sides of the plate
constexpr int kCoarse = 32;      // points per side of the coarse field in the result

struct Case {
  double diffusivity = 0, source_x = 0.5, source_y = 0.5, power = 0, end = 0.1;
  int cells = 96, steps = 64;
  bool eigenmode = false;
};

// (cells - 1)^2 inner points, row-major, first index x.
class Field {
 public:
  explicit Field(int n)
      : n_(n), values_(static_cast<std::size_t>(n) * static_cast<std::size_t>(n)) {}
  int size() const { return n_; }
  double& at(int i, int j) { return values_[index(i, j)]; }
  double at(int i, int j) const { return values_[index(i, j)]; }
  double sum() const {
    double total = 0;
    for (double value : values_) total += value;
    return total;
  }
  double max() const { return *std::max_element(values_.begin(), values_.end()); }

 private:
  std::size_t index(int i, int j) const {
    return static_cast<std::size_t>(i) * static_cast<std::size_t>(n_) + static_cast<std::size_t>(j);
  }
  int n_;
  std::vector<double> values_;
};

// Half a step of Peaceman and Rachford: explicit along one axis, implicit along the other.
Field half_step(const Field& u, const Field& source, double gain, double r, bool implicit_in_x) {
  const int n = u.size();
  auto from = [&](const Field& field, int along, int across) {
    return implicit_in_x ? field.at(along, across) : field.at(across, along);
  };
  auto get = [&](int along, int across) { return from(u, along, across); };
  Field out(n);
  std::vector<double> ratio(static_cast<std::size_t>(n)), value(static_cast<std::size_t>(n));
  for (int across = 0; across < n; ++across) {
    for (int i = 0; i < n; ++i) {
      const double before = across > 0 ? get(i, across - 1) : 0;
      const double after = across + 1 < n ? get(i, across + 1) : 0;
      const double right =
          (1 - 2 * r) * get(i, across) + r * (before + after) + gain * from(source, i, across);
      const auto at = static_cast<std::size_t>(i);
      const double pivot = 1 + 2 * r + (i > 0 ? r * ratio[at - 1] : 0);
      ratio[at] = -r / pivot;
      value[at] = (right + (i > 0 ? r * value[at - 1] : 0)) / pivot;
    }
    for (int i = n - 2; i >= 0; --i)
      value[static_cast<std::size_t>(i)] -=
          ratio[static_cast<std::size_t>(i)] * value[static_cast<std::size_t>(i) + 1];
    for (int i = 0; i < n; ++i)
      (implicit_in_x ? out.at(i, across) : out.at(across, i)) = value[static_cast<std::size_t>(i)];
  }
  return out;
}

double side_sum(const Field& u, bool sides_in_x) {
  double total = 0;
  for (int i = 0; i < u.size(); ++i)
    total += sides_in_x ? u.at(0, i) + u.at(u.size() - 1, i) : u.at(i, 0) + u.at(i, u.size() - 1);
  return total;
}

// The field at the centres of kCoarse x kCoarse squares, linear between grid points; row = y.
std::vector<std::vector<double>> coarse(const Field& u) {
  const int cells = u.size() + 1;
  auto padded = [&](int i, int j) {
    return i == 0 || j == 0 || i == cells || j == cells ? 0 : u.at(i - 1, j - 1);
  };
  std::vector<std::vector<double>> rows(kCoarse, std::vector<double>(kCoarse));
  for (int row = 0; row < kCoarse; ++row)
    for (int column = 0; column < kCoarse; ++column) {
      const double x = (column + 0.5) / kCoarse * cells, y = (row + 0.5) / kCoarse * cells;
      const int i = static_cast<int>(x), j = static_cast<int>(y);
      const double right = x - i, up = y - j;
      rows[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)] =
          (1 - right) * ((1 - up) * padded(i, j) + up * padded(i, j + 1)) +
          right * ((1 - up) * padded(i + 1, j) + up * padded(i + 1, j + 1));
    }
  return rows;
}

// What is there at the start, and the shape of what the heater gives.
Field source_of(const Case& c) {
  const double h = 1.0 / c.cells;
  Field source(c.cells - 1);
  for (int i = 0; i < source.size(); ++i)
    for (int j = 0; j < source.size(); ++j) {
      const double x = (i + 1) * h, y = (j + 1) * h;
      const double dx = x - c.source_x, dy = y - c.source_y;
      source.at(i, j) = c.eigenmode ? std::sin(kPi * x) * std::sin(kPi * y)
                                    : std::exp(-(dx * dx + dy * dy) / (2 * kWidth * kWidth));
    }
  return source;
}

struct Solution {
  Field source, u;
  double heat_lost;
};

Solution solve(const Case& c) {
  const double h = 1.0 / c.cells, dt = c.end / c.steps;
  const double r = c.diffusivity * dt / (2 * h * h);
  Solution s{source_of(c), source_of(c), 0};
  for (int step = 0; step < c.steps; ++step) {
    const Field half = half_step(s.u, s.source, 0.5 * dt * c.power, r, true);
    Field next = half_step(half, s.source, 0.5 * dt * c.power, r, false);
    // The scheme's own flow: x with the half step, y with the mean of both ends.
    s.heat_lost += c.diffusivity * dt *
                   (side_sum(half, true) + 0.5 * (side_sum(s.u, false) + side_sum(next, false)));
    s.u = std::move(next);
  }
  return s;
}

double error_max(const Case& c, const Solution& s) {
  const double rate = 2 * kPi * kPi * c.diffusivity;
  const double amplitude = std::exp(-rate * c.end) - c.power * std::expm1(-rate * c.end) / rate;
  double error = 0;
  for (int i = 0; i < s.u.size(); ++i)
    for (int j = 0; j < s.u.size(); ++j)
      error = std::max(error, std::fabs(s.u.at(i, j) - amplitude * s.source.at(i, j)));
  return error;
}

void print_number(const char* name, double value) { std::printf("\"%s\": %.17g, ", name, value); }

void print(const Case& c, const Solution& s, std::chrono::steady_clock::time_point started) {
  const double area = 1.0 / c.cells / c.cells;
  const double initial = s.source.sum() * area, final = s.u.sum() * area;
  const double injected = c.power * c.end * initial;
  double moment_x = 0, moment_y = 0;
  for (int i = 0; i < s.u.size(); ++i)
    for (int j = 0; j < s.u.size(); ++j) {
      moment_x += (i + 1) * s.u.at(i, j) / c.cells * area;
      moment_y += (j + 1) * s.u.at(i, j) / c.cells * area;
    }
  std::printf("{\"kind\": \"%s\", ", c.eigenmode ? "eigenmode" : "gaussian");
  print_number("diffusivity", c.diffusivity);
  print_number("source_x", c.source_x);
  print_number("source_y", c.source_y);
  print_number("power", c.power);
  print_number("end", c.end);
  print_number("peak", s.u.max());
  print_number("centre_x", moment_x / final);
  print_number("centre_y", moment_y / final);
  print_number("heat_initial", initial);
  print_number("heat_injected", injected);
  print_number("heat_lost", s.heat_lost);
  print_number("heat_final", final);
  print_number("budget_residual",
               std::fabs(initial + injected - s.heat_lost - final) / (initial + injected));
  if (c.eigenmode) print_number("error_max", error_max(c, s));
  std::printf("\"field\": [");
  const char* before_row = "";
  for (const auto& row : coarse(s.u)) {
    const char* before = "";
    std::printf("%s[", before_row);
    for (double value : row) std::printf("%s%.6f", std::exchange(before, ", "), value);
    std::printf("]");
    before_row = ", ";
  }
  char host[256] = "unknown";
  if (::gethostname(host, sizeof host - 1) != 0) std::strcpy(host, "unknown");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  std::printf("], \"host\": \"%s\", \"seconds\": %.6f}\n", host, seconds.count());
}

[[noreturn]] void usage(const std::string& problem) {
  std::fprintf(stderr,
               "heat: %s\nusage: heat --diffusivity D [--source-x X] [--source-y Y] "
               "[--kind gaussian|eigenmode] [--power P] [--cells N] [--steps N] [--end T] "
               "[--json]\n",
               problem.c_str());
  std::exit(64);
}

double number(const std::string& option, const char* text) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end != '\0') usage(option + " is '" + text + "', expected a number");
  return value;
}

// Written so that a NaN is refused as well.
double between(const char* name, const char* text, double least, double most, const char* what) {
  const double value = number(name, text);
  if (!(least <= value && value <= most))
    usage(std::string(name) + " is " + text + ", expected " + what);
  return value;
}

int whole(const char* name, const char* text, int least, int most) {
  const std::string what =
      "a whole number from " + std::to_string(least) + " to " + std::to_string(most);
  const double value = between(name, text, least, most, what.c_str());
  if (value != std::floor(value)) usage(std::string(name) + " is " + text + ", expected " + what);
  return static_cast<int>(value);
}

bool is_eigenmode(const std::string& kind) {
  if (kind != "gaussian" && kind != "eigenmode")
    usage("kind is '" + kind + "', expected 'gaussian' or 'eigenmode'");
  return kind == "eigenmode";
}

Case parse(int argc, char** argv) {
  constexpr double kLeast = std::numeric_limits<double>::min();
  constexpr double kMost = std::numeric_limits<double>::max();
  Case c;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--json") continue;  // the only format there is
    if (i + 1 == argc) usage(option + " is unknown or needs a value");
    const char* value = argv[++i];
    if (option == "--diffusivity") {
      c.diffusivity = between("diffusivity", value, kLeast, kMost, "a positive number");
    } else if (option == "--source-x") {
      c.source_x = between("source_x", value, 0, 1, "a place on the plate, 0 to 1");
    } else if (option == "--source-y") {
      c.source_y = between("source_y", value, 0, 1, "a place on the plate, 0 to 1");
    } else if (option == "--power") {
      c.power = between("power", value, 0, kMost, "0 or more");
    } else if (option == "--end") {
      c.end = between("end", value, kLeast, kMost, "a positive number");
    } else if (option == "--cells") {
      c.cells = whole("cells", value, 4, 4096);
    } else if (option == "--steps") {
      c.steps = whole("steps", value, 1, 1000000);
    } else if (option == "--kind") {
      c.eigenmode = is_eigenmode(value);
    } else {
      usage("unknown option '" + option + "'");
    }
  }
  if (c.diffusivity == 0) usage("--diffusivity is missing");
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  const Case c = parse(argc, argv);
  const auto started = std::chrono::steady_clock::now();
  print(c, solve(c), started);
}
