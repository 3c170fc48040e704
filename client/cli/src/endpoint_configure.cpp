// farcall endpoint configure, farcall endpoint script
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "base/files.h"
#include "cli/config_text.h"
#include "common.h"
#include "endpoint_files.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// The scheduler that answers on this host, as the interchange's program found it.
struct Detected {
  std::string provider = "local";
  std::string what;               // "slurm-wlm 22.05.8"; empty: nothing was found
  json choices = json::object();  // by key: [{"value", "note", "preferred"}]
};

Detected detect(const Invocation& invocation) {
  Detected here;
  const std::string wanted = invocation.text("provider");
  if (!wanted.empty()) here.provider = wanted;
  if (wanted == "local" || wanted == "LocalProvider") return here;
  const std::string module = wanted == "pbs" ? "pbspro" : wanted;
  auto said = ask_interchange({module.empty() ? "--discover" : "--discover=" + module});
  const json found = said ? json::parse(*said, nullptr, false) : json();
  if (!found.is_array() || found.empty()) return here;
  // Where Slurm is, PBS commands are its wrappers.
  auto best = std::find_if(found.begin(), found.end(),
                           [](const json& each) { return text_at(each, "provider") == "slurm"; });
  const json& chosen = best == found.end() ? found.front() : *best;
  here.provider = text_at(chosen, "provider");
  here.what = text_at(chosen, "what");
  here.choices = chosen.value("choices", json::object());
  return here;
}

std::string described(const json& choice) {
  const std::string note = text_at(choice, "note");
  return text_at(choice, "value") + (note.empty() ? "" : " (" + note + ")");
}

// Asks when somebody is there to answer, and takes the scheduler's own default otherwise.
std::string choose(const Invocation& invocation, const std::string& key, const json& list) {
  auto preferred = std::find_if(list.begin(), list.end(), [](const json& choice) {
    return choice.value("preferred", false);
  });
  // Nothing: the scheduler chooses.
  const std::string otherwise = preferred == list.end() ? "" : text_at(*preferred, "value");
  if (list.size() < 2 || invocation.json || isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0)
    return otherwise;
  while (true) {
    for (const json& choice : list) fmt::print("  {}\n", described(choice));
    fmt::print("{} [{}]: ", key, otherwise.empty() ? "the scheduler's default" : otherwise);
    std::fflush(stdout);
    std::string answer;
    if (!std::getline(std::cin, answer) || answer.empty()) return otherwise;
    for (const json& choice : list)
      if (text_at(choice, "value") == answer) return answer;
    fmt::print("there is no {} \"{}\":\n", key, answer);
  }
}

bool is_set(const Invocation& invocation, const std::string& path) {
  const auto assignments = invocation.list("set");
  return std::any_of(assignments.begin(), assignments.end(),
                     [&](const std::string& each) { return each.starts_with(path + "="); });
}

Result<void> add_choices(const Invocation& invocation, const Detected& here, ConfigText& config) {
  for (const auto& [key, list] : here.choices.items()) {
    if (!list.is_array() || list.empty()) continue;
    const std::string path = "engine.provider." + key;
    std::string comment = "Here are:";
    for (const json& choice : list) comment += "\n  " + described(choice);
    const std::string value =
        is_set(invocation, path) ? text_at(list.front(), "value") : choose(invocation, key, list);
    if (auto done = config.set(path, value, comment); !done) return done;
  }
  return {};
}

Result<int> configure(const Invocation& invocation) {
  const fs::path folder = folder_of(invocation), file = folder / "config.yaml";
  const Detected here = detect(invocation);
  auto config = default_config(invocation.words[0], here.provider);
  if (!config) return fail(config.error());
  if (auto done = add_choices(invocation, here, *config); !done) return fail(done.error());
  for (const std::string& assignment : invocation.list("set")) {
    auto parts = split_assignment(assignment);
    if (!parts) return fail(parts.error());
    if (auto done = config->set(parts->first, parts->second); !done) return fail(done.error());
  }
  if (fs::exists(file) && !invocation.has("replace"))
    return fail(ErrorCode::kExists, "{} exists: edit it, or write it anew with --replace",
                file.string());
  for (const fs::path& part : {invocation.home, endpoints_folder(invocation), folder})
    if (auto made = make_directory(part, 0700); !made) return fail(made.error());
  const auto before = read_file(file);
  if (auto written = write_file(file, config->text(), 0600); !written) return fail(written.error());
  if (auto fine = check_config_file(file); !fine) {
    std::error_code ignored;
    if (before)
      (void)write_file(file, *before, 0600);
    else
      fs::remove(file, ignored);
    if (!before) fs::remove(folder, ignored);
    return fail(fine.error().code, "{}\n(nothing was written; the lines are those of:)\n{}",
                fine.error().message, config->text());
  }
  if (invocation.json)
    print_json({{"endpoint", invocation.words[0]},
                {"config", file.string()},
                {"provider", here.provider},
                {"scheduler", here.what}});
  else
    fmt::print(
        "{}wrote {}\nnext: look at it, `farcall endpoint script {} --test`, then `farcall "
        "endpoint start {}`\n",
        here.what.empty() ? "" : "found " + here.what + "\n", file.string(), invocation.words[0],
        invocation.words[0]);
  return 0;
}

Result<int> script(const Invocation& invocation) {
  if (auto fine = must_be_configured(invocation); !fine) return fail(fine.error());
  const std::string folder = folder_of(invocation).string();
  auto text = ask_interchange({"--directory", folder, "--script"});
  if (!text) return fail(text.error());
  std::string verdict;
  if (invocation.has("test")) {
    auto said = ask_interchange({"--directory", folder, "--try"});
    if (!said) return fail(ErrorCode::kSchedulerRefused, "{}", said.error().message);
    verdict = said->substr(0, said->find_last_not_of('\n') + 1);
  }
  if (invocation.json) {
    json answer = {{"endpoint", invocation.words[0]}, {"script", *text}};
    if (invocation.has("test")) answer["test"] = verdict;
    print_json(answer);
  } else if (invocation.has("test")) {
    fmt::print("{}\n", verdict);
  } else {
    fmt::print("{}", *text);
  }
  return 0;
}

}  // namespace

Command configure_command() {
  Command command{"endpoint configure",
                  "NAME",
                  1,
                  1,
                  false,
                  "write the configuration of a new endpoint",
                  "",
                  "",
                  {},
                  configure};
  command.details =
      "Writes HOME/endpoints/NAME/config.yaml, with comments, and checks it. Without --provider it "
      "looks\n"
      "for Slurm and PBS here, and takes this host when there is none. What there is to choose "
      "from\n"
      "(partitions, queues, accounts) is asked for on a terminal and stands in the comments.";
  command.examples =
      "farcall endpoint configure cluster\n"
      "farcall endpoint configure here --provider local\n"
      "farcall endpoint configure cluster --provider slurm \\\n"
      "    --set engine.provider.partition=debug --set engine.provider.nodes_per_block=2 \\\n"
      "    --set engine.provider.max_blocks=2 --set engine.provider.walltime=00:30:00";
  command.options = {
      {"provider", "KIND", "local, slurm, pbs, or a module of your own (what is found here)"},
      {"set", "KEY=VALUE", "set a key by its dotted path; may be repeated", true},
      {"replace", "", "write it anew although there is one"}};
  return command;
}

Command script_command() {
  Command command{
      "endpoint script",
      "NAME",
      1,
      1,
      false,
      "show the batch script of its blocks, or try it",
      "",
      "farcall endpoint script cluster\nfarcall endpoint script cluster --test",
      {{"test", "",
        "ask the scheduler whether it would take it (sbatch --test-only, a held qsub)"}},
      script};
  command.details =
      "Rendered from HOME/endpoints/NAME/config.yaml as it is now. scheduler_options and "
      "drop_options\nthere add, replace and drop directives.";
  return command;
}

}  // namespace farcall::cli
