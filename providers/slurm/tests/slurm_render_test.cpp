#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

BlockRequest request() {
  return {"farcall-ep-1", 2, "pilot --file 'a b'", "/scratch/100%/b", 5400};
}

TEST(SlurmScript, IsThis) {
  Settings settings;
  settings.partition = "debug";
  settings.mem_per_node_gib = 1.5;
  settings.gpus_per_node = 4;
  settings.changes.scheduler_options = "#SBATCH --reservation=school\n";
  settings.worker_init = "module load python";
  EXPECT_EQ(render_script(settings, request()), R"(#!/bin/bash
#SBATCH --job-name=farcall-ep-1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=0-01:30:00
#SBATCH --output=/scratch/100%%/b/job.out
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --partition=debug
#SBATCH --mem=1536M
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --reservation=school

unset SLURM_EXPORT_ENV
export FARCALL_JOB_ID="$SLURM_JOB_ID"
export FARCALL_JOB_NAME=farcall-ep-1
export FARCALL_JOB_START="$(date +%s.%N)-${SLURM_RESTART_COUNT:-0}-$$"
export FARCALL_JOB_ENDS_AT=$(($(date +%s) + 5400))

module load python

exec srun --no-kill --kill-on-bad-exit=0 --wait=0 --overlap --export=ALL --cpu-bind=none \
  --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  /bin/bash -c 'export FARCALL_NODE_RANK=$SLURM_NODEID
pilot --file '\''a b'\'''
)");
}

TEST(SlurmScript, HasAnyDirectiveAddedReplacedOrDropped) {
  Settings settings;
  settings.partition = "debug";
  settings.changes.scheduler_options =
      "#SBATCH -p long\n#SBATCH --requeue\n# a comment\n#SBATCH --mem 0\n";
  settings.changes.drop = {"--exclusive", "no-kill", "job-name"};
  settings.mem_per_node_gib = 4;
  const auto script = render_script(settings, request());
  for (const char* gone :
       {"--partition", "--no-requeue", "#SBATCH --no-kill", "--exclusive", "4096M"})
    EXPECT_THAT(script, Not(HasSubstr(gone)));
  EXPECT_THAT(script,
              HasSubstr("#SBATCH -p long\n#SBATCH --requeue\n# a comment\n#SBATCH --mem 0\n"));
  EXPECT_THAT(script, HasSubstr("#SBATCH --job-name=farcall-ep-1\n")) << "never dropped";
  const auto command = submit_command(settings, request(), "/b/x.sbatch");
  EXPECT_THAT(command, Not(Contains("--no-requeue")));
  EXPECT_THAT(command, Not(Contains("--no-kill")));
  EXPECT_THAT(command, Contains("--job-name=farcall-ep-1"));
}

TEST(SlurmScript, StartsPilotsWithTheLauncherThatIsAskedFor) {
  Settings settings;
  for (const char* own : {"SimpleLauncher", "SingleNodeLauncher"}) {
    settings.launcher.type = own;
    EXPECT_THAT(render_script(settings, request()), HasSubstr("exec srun --no-kill"));
  }
  settings.launcher.type = "MpiExecLauncher";
  settings.launcher.overrides = "--depth=64";
  EXPECT_THAT(
      render_script(settings, request()),
      HasSubstr("ppr:1:node mpiexec --bind-to none -n 2 --hostfile \"$farcall_hosts\" --depth=64 "
                "/bin/bash -c 'export FARCALL_NODE_RANK=${OMPI_COMM_WORLD_RANK:-"));
  settings.launcher = {};
  settings.launcher.type = "MpiRunLauncher";
  settings.launcher.bash_location = "/opt/bash";
  EXPECT_THAT(render_script(settings, request()),
              HasSubstr("ppr:1:node mpirun -np 2 --hostfile \"$farcall_hosts\" /opt/bash -c '"));
  settings.launcher = {};
  settings.launcher.type = "WrappedLauncher";
  settings.launcher.prepend = "singularity exec image.sif";
  EXPECT_THAT(render_script(settings, request()),
              HasSubstr("exec singularity exec image.sif /bin/bash -c '"));
}

TEST(SlurmOptions, AreKnownByTheirLongNames) {
  EXPECT_EQ(option_of_line("#SBATCH -p debug"), "partition");
  EXPECT_EQ(option_of_line("#SBATCH --mem=4G"), "mem");
  EXPECT_EQ(option_of_line("#SBATCH --no-requeue"), "requeue");
  EXPECT_EQ(option_of_line("#SBATCH -N2"), "nodes");
  EXPECT_EQ(option_of_line("# --mem=4G"), std::nullopt);
  EXPECT_EQ(option_of_line("module load x"), std::nullopt);
}

// SBATCH_* variables of the caller override a script, never the command line.
TEST(SlurmCommands, SayWhatMustNotBeOverridden) {
  const auto command = submit_command({}, request(), "/b/x.sbatch");
  EXPECT_EQ(command.front(), "sbatch");
  EXPECT_EQ(command.back(), "/b/x.sbatch");
  for (const char* option : {"--parsable", "--job-name=farcall-ep-1", "--nodes=2", "--no-requeue",
                             "--no-kill", "--output=/scratch/100%%/b/job.out"}) {
    EXPECT_THAT(command, Contains(option));
  }
}

TEST(SlurmCommands, KeepOffTheNodesThatAreBad) {
  BlockRequest excluding = request();
  excluding.exclude_nodes = {"n3", "n7.site.org"};
  EXPECT_THAT(submit_command(Settings(), excluding, "/b/x.sbatch"), Contains("--exclude=n3,n7"));
  EXPECT_THAT(render_script(Settings(), excluding), HasSubstr("#SBATCH --exclude=n3,n7\n"));
  EXPECT_THAT(render_script(Settings(), request()), Not(HasSubstr("--exclude=")));
}

TEST(SlurmScript, AsksForAWarningBeforeTheEnd) {
  const auto settings = settings_from_json({{"warn_before", 90.0}});
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_THAT(render_script(*settings, request()), HasSubstr("#SBATCH --signal=B:USR1@90\n"));
  EXPECT_THAT(render_script(Settings(), request()), Not(HasSubstr("--signal")));
}

TEST(SlurmCommands, AskForAllJobsAtOnce) {
  Settings settings;
  settings.clusters = "north";
  const auto command = status_command(settings, {"3", "4"});
  EXPECT_THAT(command, Contains("--jobs=3,4"));
  EXPECT_THAT(command, Contains("--states=all"));
  EXPECT_THAT(command, Contains("--clusters=north"));
  EXPECT_EQ(cancel_command({}, {"3", "4"}), (std::vector<std::string>{"scancel", "3", "4"}));
}

TEST(SlurmCommands, LookForAJobOnTheClusterThatItNames) {
  EXPECT_THAT(status_command({}, {"3;north", "4;south", "5;north"}),
              Contains("--clusters=north,south"));
  EXPECT_EQ(cancel_command({}, {"3;north"}),
            (std::vector<std::string>{"scancel", "--clusters=north", "3"}));
}

TEST(SlurmSchema, HasTheNamesUsersKnow) {
  std::vector<std::string> names;
  for (const auto& key : schema()) names.push_back(key.name);
  for (const char* name :
       {"partition",         "account",          "qos",           "constraint",  "clusters",
        "cores_per_node",    "mem_per_node",     "gpus_per_node", "gres",        "walltime",
        "scheduler_options", "worker_init",      "cmd_timeout",   "exclusive",   "nodes_per_block",
        "init_blocks",       "min_blocks",       "max_blocks",    "parallelism", "launcher",
        "regex_job_id",      "status_batch_size"}) {
    EXPECT_THAT(names, Contains(name));
  }
}

TEST(SlurmSettings, FromConfiguration) {
  const auto settings = settings_from_json({{"partition", "debug"},
                                            {"qos", nullptr},
                                            {"exclusive", false},
                                            {"cores_per_node", 2},
                                            {"launcher", {{"type", "SimpleLauncher"}}}});
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ(settings->partition, "debug");
  EXPECT_EQ(settings->qos, "");
  EXPECT_EQ(settings->cores_per_node, 2);
  EXPECT_FALSE(settings->exclusive);
  EXPECT_EQ(settings->launcher.type, "SimpleLauncher");
}

TEST(SlurmSettings, RefusesWhatCannotWork) {
  const auto renamed = settings_from_json({{"scheduler_options", "#SBATCH -J mine"}});
  ASSERT_FALSE(renamed);
  EXPECT_EQ(renamed.error().code, ErrorCode::kConfig);
  EXPECT_THAT(renamed.error().message, HasSubstr("scheduler_options sets job-name"));
  const auto wrapped = settings_from_json({{"launcher", {{"type", "WrappedLauncher"}}}});
  ASSERT_FALSE(wrapped);
  EXPECT_EQ(wrapped.error().message,
            "provider slurm: launcher.prepend is missing: the command that WrappedLauncher puts in "
            "front");
  const auto smuggled = settings_from_json({{"partition", "debug\nrm -rf /"}});
  ASSERT_FALSE(smuggled);
  EXPECT_THAT(smuggled.error().message, HasSubstr("partition has a line break"));
}

}  // namespace
}  // namespace farcall::providers::slurm
