// The bytes of every message, fixed: a change here breaks peers of another release. Fields are only
// ever added at the end of a struct, which makes these longer and changes no byte that was there.
#include <gtest/gtest.h>

#include <map>

#include "wire/blobs.h"
#include "wire/codec.h"
#include "wire/notes.h"
#include "wire/places.h"

namespace farcall::wire {
namespace {

std::string hex(const Message& message) {
  std::string text = fmt::format("{}:", static_cast<int>(message.type));
  for (char c : message.body.view()) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

template <class IdType>
IdType id(std::uint8_t last) {
  IdType value;
  value.bytes[15] = last;
  return value;
}

SubmissionHeader header() {
  SubmissionHeader h;
  h.submission = id<SubmissionId>(1);
  h.function = id<FunctionId>(2);
  h.endpoint = id<EndpointId>(3);
  h.owner = "ann";
  h.group = "g";
  h.environment = {{"A", "1"}};
  return h;
}

TaskOutcome outcome() {
  TaskOutcome o;
  o.index = 4;
  o.attempt = 2;
  o.state = TaskState::kFailed;
  o.failure = FailureClass::kLost;
  o.host = "n1";
  o.data_size = 5;
  return o;
}

std::map<std::string, Message> messages() {
  const SubmissionRanges ranges{id<SubmissionId>(1), RangeSet{{0, 4}, {6, 7}}};
  const SubmissionOutcomes outcomes{id<SubmissionId>(1), {outcome()}};
  TaskHistory history;
  history.index = 4;
  history.attempt = 2;
  Hello hello;
  hello.software = "s";
  const FunctionRecord function{id<FunctionId>(2), FunctionKind::kPythonSource, "f", "{}"};
  const ChunkMeta chunk{0, {3, 4}};
  const AttemptRef attempt{id<SubmissionId>(1), 4, 2};
  PilotHello pilot;
  pilot.hello = hello;
  pilot.holds = {attempt};
  const BlobRef blob{"ab", 1000};
  ProgressItem progress;
  progress.submission = id<SubmissionId>(1);
  progress.running = RangeSet{{1, 2}};
  TaskNote note;
  note.index = 4;
  note.attempt = 2;
  note.has_progress = true;
  note.done = 0.5;
  note.total = 2;
  note.text = "x";
  note.out_offset = 70000;
  note.out_size = 3;
  return {
      {"Ping", make_message(Ping{true})},
      {"Reset", make_message(Reset{"why"})},
      {"Refused", make_message(Refused{7, "no"})},
      {"Call", make_message(Call{1, "whoami"})},
      {"Reply", make_message(Reply{1, 4, "none"})},
      {"Credit", make_message(Credit{1000, 70000})},
      {"ClientHello", make_message(ClientHello{hello, "token"})},
      {"ClientWelcome", make_message(ClientWelcome{"r", "ann", "1", 8})},
      {"RegisterFunction", make_message(RegisterFunction{1, function})},
      {"Submit", make_message(Submit{{{id<SubmissionId>(1), header(), {chunk}, true, 2}}})},
      {"SubmitAck",
       make_message(SubmitAck{{{id<SubmissionId>(1), RangeSet{{0, 2}}, true, 0, ""}}})},
      {"Watch", make_message(Watch{{{id<SubmissionId>(1), RangeSet{{0, 1}}, true, false}}})},
      {"TaskResults", make_message(TaskResults{{outcomes}})},
      {"Collected", make_message(Collected{{ranges}})},
      {"Progress", make_message(Progress{{progress}})},
      {"EndpointHello", make_message(EndpointHello{
                            hello, id<EndpointId>(3), id<InstanceId>(4), 5, false, {ranges}})},
      {"EndpointWelcome", make_message(EndpointWelcome{5, "1", {ranges}, "here"})},
      {"Work",
       make_message(Work{
           {function}, {header()}, {{id<SubmissionId>(1), chunk, RangeSet{{0, 2}}, {history}}}})},
      {"CancelTasks", make_message(CancelTasks{{ranges}})},
      {"Results", make_message(Results{9, {outcomes}})},
      {"ResultsAck", make_message(ResultsAck{{8, 9}})},
      {"EndpointStatus", make_message(EndpointStatus{})},
      {"Running", make_message(Running{{ranges}})},
      {"Attempts", make_message(Attempts{{{id<SubmissionId>(1), {history}}}})},
      {"PilotHello", make_message(pilot)},
      {"PilotWelcome", make_message(PilotWelcome{5, 1000, 60000, {attempt}, 2})},
      {"Dispatch",
       make_message(Dispatch{{function}, {header()}, {{id<SubmissionId>(1), {{4, 2, 10}}}}})},
      {"CancelAttempts", make_message(CancelAttempts{{attempt}})},
      {"PilotStatus", make_message(PilotStatus{1, 2, 60})},
      {"Stop", make_message(Stop{"why", 5000})},
      {"HandBack", make_message(HandBack{{attempt}, FailureClass::kAllocationEnded})},
      {"Notes", make_message(Notes{{{id<SubmissionId>(1), {note}}}})},
      {"Topology", make_message(Topology{{0, 2}, {1, 1}, {"0"}, 1})},
      {"Places", make_message(Places{{{attempt, {{"n1", 0, 2, 2, {0, 2}, {"0"}}}}}})},
      {"Guests", make_message(Guests{{{attempt, 3}}})},
      {"Spawn", make_message(Spawn{attempt, 7, 1, "orted", {{"A", "1"}}, "/tmp"})},
      {"Spawned", make_message(Spawned{attempt, 7, 127, "no"})},
      {"BlobOffer", make_message(BlobOffer{{blob}})},
      {"BlobWant", make_message(BlobWant{{blob}, true})},
      {"BlobState", make_message(BlobState{blob, 11, "full", "/c/ab"})},
      {"BlobGet", make_message(BlobGet{blob, 256, 128})},
      {"BlobChunk", make_message(BlobChunk{blob, 256, 4, "gone"})},
  };
}

const std::map<std::string, std::string>& golden() {
  static const std::map<std::string, std::string> bytes = {
      {"Attempts", "39:919192c410000000000000000000000000000000019193040299000000000000000000"},
      {"BlobChunk", "74:9492a26162cd03e8cd010004a4676f6e65"},
      {"BlobGet", "73:9392a26162cd03e8cd0100cc80"},
      {"BlobOffer", "70:919192a26162cd03e8"},
      {"BlobState", "72:9492a26162cd03e80ba466756c6ca52f632f6162"},
      {"BlobWant", "71:929192a26162cd03e8c3"},
      {"Call", "4:9201a677686f616d69"},
      {"CancelAttempts", "53:919193c410000000000000000000000000000000010402"},
      {"CancelTasks", "34:919192c410000000000000000000000000000000019400040607"},
      {"ClientHello", "10:9296a766617263616c6c0101a173a000a5746f6b656e"},
      {"ClientWelcome", "11:94a172a3616e6ea13108"},
      {"Collected", "17:919192c410000000000000000000000000000000019400040607"},
      {"Credit", "6:92cd03e8ce00011170"},
      {"Dispatch",
       "52:939194c4100000000000000000000000000000000201a166a27b7d919dc41000000000000"
       "000000000000000000001c41000000000000000000000000000000002c410000000000000000"
       "00000000000000003a3616e6ea167a000960100000100c2009800010300000203c281a141a13"
       "1c2009192c41000000000000000000000000000000001919304020a"},
      {"EndpointHello",
       "30:9696a766617263616c6c0101a173a000c41000000000000000000000000000000003c4100"
       "000000000000000000000000000000405c29192c410000000000000000000000000000000019"
       "400040607"},
      {"EndpointStatus", "37:90"},
      {"EndpointWelcome",
       "31:9405a1319192c410000000000000000000000000000000019400040607a468657265"},
      {"Guests", "60:91919293c41000000000000000000000000000000001040203"},
      {"Spawn",
       "61:9693c4100000000000000000000000000000000104020701a56f7274656481a141a131a42f746d70"},
      {"Spawned", "62:9493c410000000000000000000000000000000010402077fa26e6f"},
      {"Topology", "58:9492000292010191a13001"},
      {"Places", "59:91919293c4100000000000000000000000000000000104029196a26e3100020292000291a130"},
      {"HandBack", "57:929193c41000000000000000000000000000000001040206"},
      {"Notes",
       "80:919192c41000000000000000000000000000000001919a0402c3cb3fe000000000000002a178ce0001117"
       "0030000"},
      {"PilotHello",
       "50:9d96a766617263616c6c0101a173a000c41000000000000000000000000000000000c4100"
       "0000000000000000000000000000000a000a000000000ff9193c410000000000000000000000"
       "00000000001040200"},
      {"PilotStatus", "55:9301023c"},
      {"PilotWelcome", "51:9505cd03e8cdea609193c41000000000000000000000000000000001040202"},
      {"Ping", "1:91c3"},
      {"Progress", "18:919198c4100000000000000000000000000000000100c200000092010200"},
      {"Refused", "3:9207a26e6f"},
      {"RegisterFunction", "12:920194c4100000000000000000000000000000000201a166a27b7d"},
      {"Reply", "5:930104a46e6f6e65"},
      {"Reset", "2:91a3776879"},
      {"Results", "35:92099192c41000000000000000000000000000000001919a0402050500000000a26e3105"},
      {"ResultsAck", "36:91920809"},
      {"Running", "38:919192c410000000000000000000000000000000019400040607"},
      {"Stop", "56:92a3776879cd1388"},
      {"Submit",
       "13:919195c410000000000000000000000000000000019dc4100000000000000000000000000"
       "0000001c41000000000000000000000000000000002c41000000000000000000000000000000"
       "003a3616e6ea167a000960100000100c2009800010300000203c281a141a131c200919200920"
       "304c302"},
      {"SubmitAck", "14:919195c41000000000000000000000000000000001920002c300a0"},
      {"TaskResults", "16:919192c41000000000000000000000000000000001919a0402050500000000a26e3105"},
      {"Watch", "15:919194c41000000000000000000000000000000001920001c3c2"},
      {"Work",
       "33:939194c4100000000000000000000000000000000201a166a27b7d919dc41000000000000"
       "000000000000000000001c41000000000000000000000000000000002c410000000000000000"
       "00000000000000003a3616e6ea167a000960100000100c2009800010300000203c281a141a13"
       "1c2009194c410000000000000000000000000000000019200920304920002919304029900000"
       "0000000000000"},
  };
  return bytes;
}

TEST(Golden, EveryMessageHasTheBytesOfTheFirstRelease) {
  for (const auto& [name, message] : messages()) {
    ASSERT_EQ(golden().count(name), 1u) << "{\"" << name << "\", \"" << hex(message) << "\"},";
    EXPECT_EQ(hex(message), golden().at(name)) << name;
  }
  EXPECT_EQ(messages().size(), golden().size());
}

}  // namespace
}  // namespace farcall::wire
