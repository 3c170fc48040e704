// sweep ENDPOINT LIBRARY: calls `swing` of the shared object for many angles and prints a table.
#include <farcall/executor.h>
#include <stdio.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace {

// What a swing comes back as; any type that nlohmann::json can read will do.
using Swing = std::map<std::string, double>;

int complain(const farcall::Error& error) {
  fprintf(stderr, "sweep: %s\n", error.message.c_str());
  return farcall::error_exit_code(error.code);
}

int run(const std::string& endpoint, const std::string& library) {
  auto function = farcall::read_native_function(library, "swing");
  if (!function) return complain(function.error());
  auto client = farcall::Client::connect();
  if (!client) return complain(client.error());
  auto id = (*client)->register_function(function->record, function->body);
  if (!id) return complain(id.error());
  auto executor = farcall::Executor::make(**client, endpoint);
  if (!executor) return complain(executor.error());
  executor->header().label = "pendulum";

  std::vector<std::tuple<double, double, double>> rows;
  for (int angle = 10; angle <= 170; angle += 10) rows.emplace_back(angle, 1.0, 1e-5);
  auto futures = executor->submit_all<Swing>(*id, rows);
  if (!futures) return complain(futures.error());
  printf("%8s %10s\n", "degrees", "period/s");
  for (const auto& future : *futures) {
    auto swing = future.get(std::chrono::minutes(5));
    if (!swing) return complain(swing.error());
    printf("%8.0f %10.4f\n", (*swing)["angle"], (*swing)["period"]);
  }
  // An error arrives with its C++ type and text.
  auto wrong = executor->call<Swing>(*id, 200.0, 1.0, 1e-5);
  printf("200 degrees: %s\n", wrong ? "?" : wrong.error().message.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: sweep ENDPOINT LIBRARY.so\n");
    return 64;
  }
  return run(argv[1], argv[2]);
}
