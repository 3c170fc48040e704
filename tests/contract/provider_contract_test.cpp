// What every provider promises. FARCALL_CONTRACT_PROVIDER names the one under test (default:
// local); slurm needs a cluster: tests/support/with_slurm_cluster -- provider_contract_test
// and pbspro a server: tests/support/with_pbs -- provider_contract_test
#include <gmock/gmock.h>

#include <cstdlib>
#include <set>
#include <sstream>

#include "base/subprocess.h"
#include "provider_fixture.h"

namespace farcall::providers {
namespace {

using testing::HasSubstr;

std::string variable(const char* name, const char* otherwise = "") {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

class ProviderContract : public ProviderFixture {
 protected:
  void SetUp() override { load_with({{"worker_init", "export FROM_INIT='it works'"}}); }

  void load_with(nlohmann::json config) {
    if (is_slurm()) config["exclusive"] = false;
    if (is_pbs()) config.update({{"cmd_timeout", 10.0}, {"walltime", 600}});
    load(name_, config);
  }

  bool is_slurm() const { return name_ == "slurm"; }
  bool is_pbs() const { return name_ == "pbspro"; }
  bool has_nodes() const { return is_slurm() || is_pbs(); }
  std::string stranger() const { return is_pbs() ? "999999.pbsctl" : "999999"; }

  void run(const std::vector<std::string>& arguments) {
    Command command;
    command.argv = arguments;
    const auto output = run_command(command);
    ASSERT_TRUE(output) << output.error().message;
    ASSERT_EQ(output->exit_code, 0) << output->err;
  }
  // scripts/slurm-cluster COMMAND...
  void cluster(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), variable("FARCALL_TEST_CLUSTER"));
    arguments.insert(arguments.end(), {"--dir", variable("FARCALL_TEST_CLUSTER_DIR")});
    run(arguments);
  }
  // pbs_lookalike.py WHAT DIR WORDS...
  void pbs(const std::string& what, const std::vector<std::string>& words) {
    std::vector<std::string> all = {variable("FARCALL_TEST_PBS"), what,
                                    variable("FARCALL_TEST_PBS_DIR")};
    all.insert(all.end(), words.begin(), words.end());
    run(all);
  }
  void freeze() { is_pbs() ? pbs("server", {"freeze"}) : cluster({"pause"}); }
  void thaw() { is_pbs() ? pbs("server", {"thaw"}) : cluster({"resume"}); }
  void kill_node(const std::string& number) {
    is_pbs() ? pbs("node", {number, "kill"}) : cluster({"kill-node", number});
  }
  void start_node(const std::string& number) {
    is_pbs() ? pbs("mom", {number, "start"}) : cluster({"start-node", number});
  }
  // Slurm's own word for a node.
  std::string node_state(const std::string& number) {
    Command asked;
    asked.argv = {"sinfo", "-h", "-n", "n" + number, "-o", "%T"};
    const auto state = run_command(asked);
    return state ? state->out : "";
  }

  const std::string name_ = variable("FARCALL_CONTRACT_PROVIDER", "local");
};

TEST_F(ProviderContract, RunsTheCommandOnceOnEveryNode) {
  const auto block = request(
      "printf '%s\\n' \"$FARCALL_NODE_RANK\" \"$FARCALL_JOB_ID\" \"$FARCALL_JOB_NAME\" "
      "\"$FARCALL_JOB_START\" \"$FARCALL_JOB_ENDS_AT\" \"$FROM_INIT\" \"${SLURMD_NODENAME:-$(uname "
      "-n)}\" "
      ">>rank.$FARCALL_NODE_RANK; echo said-$FARCALL_NODE_RANK",
      2);
  const auto id = submit(block);
  const auto end = await(id, JobState::kEnded);
  EXPECT_EQ(end.ended_by, EndedBy::kCompleted) << end.word << " " << end.reason;
  EXPECT_EQ(end.exit_code, 0);
  EXPECT_EQ(end.job_name, block.job_name);

  std::set<std::string> starts, nodes;
  for (int rank = 0; rank < 2; ++rank) {
    std::istringstream lines(text_of(block.directory + "/rank." + std::to_string(rank)));
    std::vector<std::string> line(8);
    for (auto& text : line) std::getline(lines, text);
    EXPECT_EQ(line[0], std::to_string(rank));
    EXPECT_EQ(line[1], id);
    EXPECT_EQ(line[2], block.job_name);
    starts.insert(line[3]);
    EXPECT_GT(std::atoll(line[4].c_str()), time(nullptr));
    EXPECT_EQ(line[5], "it works");
    nodes.insert(line[6]);
    EXPECT_EQ(line[7], "") << "ran twice";
  }
  EXPECT_EQ(starts.size(), 1U);
  EXPECT_FALSE(starts.begin()->empty());
  EXPECT_EQ(nodes.size(), has_nodes() ? 2U : 1U);
  EXPECT_THAT(text_of(block.directory + "/job.out"), HasSubstr("said-0"));
  EXPECT_THAT(text_of(block.directory + "/job.out"), HasSubstr("said-1"));
}

TEST_F(ProviderContract, ReportsHowItEnded) {
  const auto failed = submit(request("exit 3"));
  const auto fine = submit(request("true"));
  const auto end = await(failed, JobState::kEnded);
  EXPECT_EQ(end.ended_by, EndedBy::kFailed);
  EXPECT_EQ(end.exit_code, 3);
  EXPECT_EQ(await(fine, JobState::kEnded).ended_by, EndedBy::kCompleted);
}

TEST_F(ProviderContract, TellsOfARunningJobAndCancelsIt) {
  const auto block = request("touch started; sleep 600", 2);
  const auto id = submit(block);
  const auto running = await(id, JobState::kRunning);
  EXPECT_FALSE(running.nodes.empty());
  ASSERT_TRUE(running.remaining_s);
  EXPECT_GT(*running.remaining_s, 300);
  EXPECT_LE(*running.remaining_s, 600);
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(block.directory + "/started"); }));
  const auto found = provider_->find_by_name(block.job_name);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(*found, std::vector<std::string>{id});
  const auto done = provider_->cancel({id});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(await(id, JobState::kEnded).ended_by, EndedBy::kCancelled);
  EXPECT_TRUE(provider_->cancel({id})) << "a job that has ended";
}

TEST_F(ProviderContract, FindsWhatEndedNotLongAgo) {
  const auto block = request("true");
  const auto id = submit(block);
  await(id, JobState::kEnded);
  EXPECT_EQ(*provider_->find_by_name(block.job_name), std::vector<std::string>{id});
}

TEST_F(ProviderContract, AnswersInTheOrderAskedAlsoForStrangers) {
  const auto first = submit(request("true")), second = submit(request("true"));
  const auto jobs = provider_->status({stranger(), second, first});
  ASSERT_TRUE(jobs) << jobs.error().message;
  ASSERT_EQ(jobs->size(), 3U);
  EXPECT_FALSE((*jobs)[0].listed);
  EXPECT_EQ((*jobs)[0].reason, "not listed");
  EXPECT_EQ((*jobs)[1].job_id, second);
  EXPECT_TRUE((*jobs)[1].listed);
  EXPECT_EQ((*jobs)[2].job_id, first);
}

TEST_F(ProviderContract, KnowsNothingOfStrangers) {
  EXPECT_FALSE(status(stranger()).listed);
  const auto found = provider_->find_by_name("contract-nobody");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_TRUE(found->empty());
  const auto cancelled = provider_->cancel({stranger()});
  EXPECT_TRUE(cancelled) << cancelled.error().message;
}

TEST_F(ProviderContract, TakesAnyCommandLine) {
  const auto block =
      request("x='a \"b\"'\n[ \"$x\" = 'a \"b\"' ] && printf %s \"$x\" '$HOME' >out");
  EXPECT_EQ(await(submit(block), JobState::kEnded).ended_by, EndedBy::kCompleted);
  EXPECT_EQ(text_of(block.directory + "/out"), "a \"b\"$HOME");
}

TEST_F(ProviderContract, ShowsWhatItWouldSubmit) {
  const auto text = provider_->script(request("echo hello"));
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_THAT(*text, HasSubstr("echo hello"));
  EXPECT_THAT(*text, HasSubstr("export FROM_INIT='it works'"));
}

TEST_F(ProviderContract, RefusesARequestThatMakesNoSense) {
  auto block = request("true");
  block.job_name = "a,b";
  const auto reply = provider_->submit(block);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ProviderContract, GivesTheSchedulersOwnWordsWhenItSaysNo) {
  const auto block = request("true");
  if (has_nodes()) {
    load_with({{is_pbs() ? "queue" : "partition", "nosuch"}});
    const auto reply = provider_->submit(block);
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, ErrorCode::kSchedulerRefused);
    EXPECT_THAT(reply.error().message,
                HasSubstr(is_pbs() ? "Unknown queue" : "Invalid partition name specified"));
    EXPECT_TRUE(provider_->find_by_name(block.job_name)->empty());
  } else {
    submit(block);
    const auto again = provider_->submit(block);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ErrorCode::kSchedulerRefused);
    EXPECT_THAT(again.error().message, HasSubstr("there is a job " + block.job_name));
  }
}

TEST_F(ProviderContract, GivesTheReasonOfAJobThatWaits) {
  if (!has_nodes()) GTEST_SKIP() << "has no queue";
  auto block = request("true", 2);
  if (is_slurm()) block.walltime_s = 24 * 3600;  // over the partition's limit
  if (is_pbs()) load_with({{"cpus_per_node", 999}});
  const std::string reason =
      is_pbs() ? "Can Never Run: Insufficient amount of resource: ncpus" : "PartitionTimeLimit";
  const auto id = submit(block);
  EXPECT_TRUE(eventually([&] { return status(id).reason.starts_with(reason); }))
      << status(id).reason;
  EXPECT_EQ(status(id).state, JobState::kQueued);
}

TEST_F(ProviderContract, EndsAJobWhoseTimeIsOver) {
  if (is_slurm() && variable("FARCALL_TEST_LONG").empty()) {
    GTEST_SKIP() << "takes Slurm up to two minutes; runs with FARCALL_TEST_LONG";
  }
  auto block = request("sleep 600");
  block.walltime_s = 1;
  const auto id = submit(block);
  EXPECT_TRUE(
      eventually([&] { return status(id).state == JobState::kEnded; }, std::chrono::seconds(180)));
  EXPECT_EQ(status(id).ended_by, EndedBy::kWalltime);
}

// The answer to submit is lost, the job is there: found by its name.
TEST_F(ProviderContract, ControllerThatHangsLeavesTheOutcomeUnknown) {
  if (!has_nodes()) GTEST_SKIP() << "has no controller";
  const auto block = request("sleep 600");
  if (is_pbs()) load_with({{"cmd_timeout", 2.0}});
  freeze();
  const auto reply = provider_->submit(block);
  const auto jobs = provider_->status({is_pbs() ? "1.pbsctl" : "1"});
  thaw();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kOutcomeUnknown) << reply.error().message;
  ASSERT_FALSE(jobs);
  EXPECT_EQ(jobs.error().code, ErrorCode::kSchedulerUnavailable) << jobs.error().message;
  std::vector<std::string> ids;
  EXPECT_TRUE(eventually([&] {
    const auto found = provider_->find_by_name(block.job_name);
    if (found) ids = *found;
    return !ids.empty();
  }));
  ASSERT_EQ(ids.size(), 1U);
  submitted_.push_back(ids[0]);
}

// PBS only: what a real Slurm does without its controller is in provider_faults_test.
TEST_F(ProviderContract, AServerThatIsDownSaysNothingAboutJobsAndLosesNone) {
  if (!is_pbs()) GTEST_SKIP() << "stopped in a test of its own";
  const auto block = request("while [ ! -e finish ]; do sleep 0.05; done; exit 4");
  const auto id = submit(block);
  await(id, JobState::kRunning);
  pbs("server", {"kill"});
  EXPECT_EQ(provider_->submit(request("true")).error().code, ErrorCode::kSchedulerUnavailable);
  const auto jobs = provider_->status({id});
  ASSERT_FALSE(jobs);
  EXPECT_EQ(jobs.error().code, ErrorCode::kSchedulerUnavailable);
  EXPECT_THAT(jobs.error().message, HasSubstr("cannot connect to server pbsctl (errno=15010)"));
  EXPECT_EQ(provider_->find_by_name(block.job_name).error().code, ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(provider_->cancel({"1.pbsctl"}).error().code, ErrorCode::kSchedulerUnavailable);
  ASSERT_TRUE(write_file(block.directory + "/finish", ""));  // it ends meanwhile
  pbs("server", {"start"});
  const auto end = await(id, JobState::kEnded);
  EXPECT_EQ(end.ended_by, EndedBy::kFailed);
  EXPECT_EQ(end.exit_code, 4);
}

TEST_F(ProviderContract, OneNodesDeathDoesNotEndTheBlock) {
  if (!has_nodes()) GTEST_SKIP() << "has one node";
  if (is_slurm() && variable("FARCALL_TEST_MODE") != "namespaces")
    GTEST_SKIP() << "nodes cannot be killed alone";
  const auto block = request(
      "echo ${SLURMD_NODENAME:-$(uname -n)} >node.$FARCALL_NODE_RANK\n"
      "while [ ! -e finish ]; do date >beat.$FARCALL_NODE_RANK; sleep 0.1; done; exit 0",
      2);
  const auto id = submit(block);
  const auto path = [&](const char* name) { return std::filesystem::path(block.directory) / name; };
  ASSERT_TRUE(eventually(
      [&] { return !text_of(path("beat.0")).empty() && !text_of(path("beat.1")).empty(); }));
  // The second node: the first one runs the batch script itself.
  std::string victim = text_of(path("node.1"));  // "n2" or "pbsn2", and a line end
  victim = victim.substr(victim.find_first_of("0123456789"), 1);
  kill_node(victim);
  if (is_slurm()) {
    EXPECT_TRUE(eventually([&] { return node_state(victim).starts_with("down"); }))
        << "Slurm does not notice";
  }
  EXPECT_EQ(status(id).state, JobState::kRunning) << status(id).word;
  std::filesystem::remove(path("beat.0"));
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(path("beat.0")); }))
      << "rank 0 was ended";
  ASSERT_TRUE(write_file(path("finish"), ""));
  const auto end = await(id, JobState::kEnded);
  EXPECT_NE(end.ended_by, EndedBy::kUnknown);
  start_node(victim);
  if (is_slurm()) {
    EXPECT_TRUE(eventually([&] { return node_state(victim).starts_with("idle"); }));
  }
}

}  // namespace
}  // namespace farcall::providers
