#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "providers_pbs/pbs_text.h"

namespace farcall::providers::pbs {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

BlockRequest request(int nodes = 2) {
  return {"farcall-ep-1", nodes, "pilot --file 'a b'", "/scratch/it's", 5400};
}

Settings settings() {
  Settings made;
  made.records = "/home/x/ep/pbs-jobs";
  return made;
}

TEST(PbsScript, BeginsWithItsDirectives) {
  Settings some = settings();
  some.queue = "prod";
  some.account = "chem";
  some.cpus_per_node = 64;
  some.select_options = ":ngpus=4:mem=200gb";
  some.changes.scheduler_options = "#PBS -l filesystems=home\n";
  some.worker_init = "module load python";
  const auto script = render_script(some, request());
  EXPECT_THAT(script, StartsWith(R"(#!/bin/bash
#PBS -N farcall-ep-1
#PBS -l select=2:ncpus=64:ngpus=4:mem=200gb
#PBS -l place=scatter
#PBS -l walltime=01:30:00
#PBS -r n
#PBS -o /dev/null
#PBS -e /dev/null
#PBS -W tolerate_node_failures=all
#PBS -q prod
#PBS -A chem
#PBS -l filesystems=home
)"));
  EXPECT_THAT(script, HasSubstr("directory='/scratch/it'\\''s'\nrecords=/home/x/ep/pbs-jobs\n"));
  EXPECT_THAT(script, HasSubstr("\nmodule load python\n"));
  EXPECT_THAT(script, HasSubstr("\npilot --file 'a b'\n"));
  EXPECT_THAT(script, HasSubstr("exec >>\"$directory/job.out\" 2>&1"));
  EXPECT_THAT(render_script(settings(), request(1)), Not(HasSubstr("tolerate")));
}

TEST(PbsScript, HasAnyDirectiveAddedReplacedOrDropped) {
  Settings some = settings();
  some.changes.scheduler_options = "#PBS -l select=2:system=polaris\n#PBS -r y";
  some.changes.drop = {"l:place", "-W:tolerate_node_failures", "N"};
  const auto script = render_script(some, request());
  EXPECT_THAT(script, Not(HasSubstr("select=2:ncpus")));
  EXPECT_THAT(script, Not(HasSubstr("-r n")));
  EXPECT_THAT(script, Not(HasSubstr("place=")));
  EXPECT_THAT(script, Not(HasSubstr("tolerate")));
  EXPECT_THAT(script, HasSubstr("#PBS -N farcall-ep-1\n")) << "never dropped";
  EXPECT_THAT(script, HasSubstr("#PBS -l select=2:system=polaris\n#PBS -r y\n"));
}

TEST(PbsScript, StartsAPilotOnEveryNode) {
  const auto own = render_script(settings(), request());
  EXPECT_THAT(own, HasSubstr("\"$tmrsh\" \"${hosts[$rank]}\" /bin/bash \"$launch\" \"$rank\" &"));
  Settings some = settings();
  some.launcher.type = "MpiExecLauncher";
  some.launcher.bind_cmd = "--cpu-bind";
  some.launcher.overrides = "--depth=64 --ppn 1";
  const auto mpi = render_script(some, request());
  EXPECT_THAT(mpi,
              HasSubstr("ppr:1:node mpiexec --cpu-bind none -n 2 --hostfile \"$farcall_hosts\" "
                        "--depth=64 --ppn 1 /bin/bash \"$launch\" &\n"));
  EXPECT_THAT(mpi, Not(HasSubstr("\"$tmrsh\" \"${hosts")));
  EXPECT_THAT(mpi, HasSubstr("export OMPI_MCA_plm_rsh_agent="));
}

TEST(PbsScript, StartsNoPilotOnNodesThatAreBad) {
  BlockRequest excluding = request();
  excluding.exclude_nodes = {"n3.site.org", "n7", "$(reboot)"};
  EXPECT_THAT(render_script(settings(), excluding), HasSubstr("  case \" n3 n7 \" in\n"));
  EXPECT_THAT(render_script(settings(), request()), HasSubstr("  case \"  \" in\n"));
}

TEST(PbsDirectives, AreKnownByWhatTheySet) {
  EXPECT_EQ(directive_of_line("#PBS -l select=2:ncpus=4"), "l:select");
  EXPECT_EQ(directive_of_line("#PBS -lwalltime=1:00"), "l:walltime");
  EXPECT_EQ(directive_of_line("#PBS -W umask=022"), "W:umask");
  EXPECT_EQ(directive_of_line("#PBS -q short"), "q");
  EXPECT_EQ(directive_of_line("# -q short"), std::nullopt);
}

TEST(PbsEnvironment, IsWhatPbsNeedsAndPlain) {
  const auto kept = clean_environment({{"PATH", "/usr/bin"},
                                       {"HOME", "/home/w\xc3\xad"},
                                       {"SECRET", "x"},
                                       {"BASH_FUNC_module%%", "() {\n}"},
                                       {"PBS_SERVER", "big"}});
  EXPECT_THAT(kept, testing::UnorderedElementsAre("LANG=C", "PATH=/usr/bin", "PBS_SERVER=big"));
}

TEST(PbsSettings, FromConfiguration) {
  const auto made = settings_from_json({{"queue", "debug"},
                                        {"account", nullptr},
                                        {"cpus_per_node", 4},
                                        {"directory", "/e"},
                                        {"launcher", {{"type", "SimpleLauncher"}}}});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->queue, "debug");
  EXPECT_EQ(made->records, "/e/pbs-jobs");
  EXPECT_TRUE(made->launcher.own_way());
  const auto smuggled = settings_from_json({{"queue", "a\nb"}});
  EXPECT_EQ(smuggled.error().message,
            "provider pbspro: queue has a line break; it must be one line");
  EXPECT_THAT(settings_from_json({{"scheduler_options", "#PBS -N mine"}}).error().message,
              HasSubstr("scheduler_options sets -N"));
}

TEST(PbsSchema, HasTheNamesUsersKnow) {
  std::vector<std::string> names;
  for (const auto& key : schema()) names.push_back(key.name);
  for (const char* name :
       {"account", "queue", "scheduler_options", "select_options", "cpus_per_node", "walltime",
        "cmd_timeout", "launcher", "worker_init", "nodes_per_block", "init_blocks", "min_blocks",
        "max_blocks", "parallelism"})
    EXPECT_THAT(names, Contains(name));
}

}  // namespace
}  // namespace farcall::providers::pbs
