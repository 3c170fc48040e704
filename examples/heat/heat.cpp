// The solver of heat.py as a program without dependencies, for use as a shell task:
//   heat --diffusivity 0.05 --source-x 0.3 --source-y 0.6 [--kind eigenmode] [--cells 96]
// prints one JSON object.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr double kPi = 3.14159265358979323846;

struct Case {
  double diffusivity = 0.05, source_x = 0.5, source_y = 0.5, end = 0.1;
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
  double max() const {
    double largest = 0;
    for (double value : values_) largest = std::max(largest, value);
    return largest;
  }

 private:
  std::size_t index(int i, int j) const {
    return static_cast<std::size_t>(i) * static_cast<std::size_t>(n_) + static_cast<std::size_t>(j);
  }
  int n_;
  std::vector<double> values_;
};

// Half a step of Peaceman and Rachford: explicit along one axis, implicit along the other.
Field half_step(const Field& u, double r, bool implicit_in_x) {
  const int n = u.size();
  auto get = [&](int along, int across) {
    return implicit_in_x ? u.at(along, across) : u.at(across, along);
  };
  Field out(n);
  std::vector<double> ratio(static_cast<std::size_t>(n)), value(static_cast<std::size_t>(n));
  for (int across = 0; across < n; ++across) {
    for (int i = 0; i < n; ++i) {
      const double before = across > 0 ? get(i, across - 1) : 0;
      const double after = across + 1 < n ? get(i, across + 1) : 0;
      const double right = (1 - 2 * r) * get(i, across) + r * (before + after);
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

void solve(const Case& c) {
  const double h = 1.0 / c.cells, dt = c.end / c.steps;
  const double r = c.diffusivity * dt / (2 * h * h);
  const int n = c.cells - 1;
  Field u(n);
  auto mode = [&](int i, int j) {
    return std::sin(kPi * (i + 1) * h) * std::sin(kPi * (j + 1) * h);
  };
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const double dx = (i + 1) * h - c.source_x, dy = (j + 1) * h - c.source_y;
      u.at(i, j) = c.eigenmode ? mode(i, j) : std::exp(-(dx * dx + dy * dy) / (2 * 0.08 * 0.08));
    }
  const double initial = u.sum() * h * h;
  double lost = 0;
  for (int step = 0; step < c.steps; ++step) {
    const Field half = half_step(u, r, true);
    Field next = half_step(half, r, false);
    lost += c.diffusivity * dt *
            (side_sum(half, true) + 0.5 * (side_sum(u, false) + side_sum(next, false)));
    u = std::move(next);
  }
  const double final = u.sum() * h * h;
  double error = 0;
  const double decay = std::exp(-2 * kPi * kPi * c.diffusivity * c.end);
  if (c.eigenmode)
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j)
        error = std::max(error, std::fabs(u.at(i, j) - decay * mode(i, j)));
  std::printf(
      "{\"diffusivity\": %.17g, \"source_x\": %.17g, \"source_y\": %.17g, \"kind\": \"%s\", "
      "\"peak\": %.17g, \"heat_initial\": %.17g, \"heat_final\": %.17g, \"heat_lost\": %.17g, "
      "\"budget_residual\": %.17g, \"error_max\": %.17g}\n",
      c.diffusivity, c.source_x, c.source_y, c.eigenmode ? "eigenmode" : "gaussian", u.max(),
      initial, final, lost, std::fabs(initial - final - lost) / initial, error);
}

[[noreturn]] void usage(const std::string& problem) {
  std::fprintf(stderr,
               "heat: %s\nusage: heat --diffusivity D [--source-x X] [--source-y Y] "
               "[--kind gaussian|eigenmode] [--cells N] [--steps N] [--end T]\n",
               problem.c_str());
  std::exit(64);
}

double number(const char* option, const char* text) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end != '\0')
    usage(std::string(option) + " is '" + text + "', expected a number");
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  Case c;
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 == argc) usage(option + " needs a value");
    const char* value = argv[i + 1];
    if (option == "--diffusivity") {
      c.diffusivity = number(argv[i], value);
    } else if (option == "--source-x") {
      c.source_x = number(argv[i], value);
    } else if (option == "--source-y") {
      c.source_y = number(argv[i], value);
    } else if (option == "--end") {
      c.end = number(argv[i], value);
    } else if (option == "--cells") {
      c.cells = static_cast<int>(number(argv[i], value));
    } else if (option == "--steps") {
      c.steps = static_cast<int>(number(argv[i], value));
    } else if (option == "--kind") {
      c.eigenmode = std::strcmp(value, "eigenmode") == 0;
      if (!c.eigenmode && std::strcmp(value, "gaussian") != 0) usage("unknown --kind");
    } else {
      usage("unknown option '" + option + "'");
    }
  }
  if (c.cells < 4 || c.steps < 1 || c.diffusivity <= 0 || c.end <= 0)
    usage("--diffusivity and --end must be positive, --cells at least 4, --steps at least 1");
  solve(c);
}
