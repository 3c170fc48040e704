// A pendulum that is let go at an angle: how long does one swing take? Runs on the workers.
#include <farcall/function.h>

#include <cmath>
#include <stdexcept>

struct Swing {
  double angle = 0;   // degrees
  double period = 0;  // s
  int steps = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Swing, angle, period, steps)

// `length` in m, `step` in s.
static Swing swing(double angle, double length, double step) {
  if (angle <= 0 || angle >= 180)
    throw std::invalid_argument("the angle must lie between 0 and 180 degrees");
  double x = angle * M_PI / 180, v = 0, t = 0;
  int steps = 0;
  // A quarter of a swing ends at the bottom.
  for (; x > 0; t += step, ++steps) {
    v -= 9.81 / length * std::sin(x) * step;
    x += v * step;
  }
  return {angle, 4 * t, steps};
}

FARCALL_FUNCTION(swing, swing)
