#include "wire/codec.h"

#include <msgpack.hpp>

#include "wire/blobs.h"
#include "wire/notes.h"
#include "wire/places.h"
#include "wire/shell_result.h"

// How each value packs. Structs are arrays in field order; see messages.h for the rules of change.
namespace msgpack {
MSGPACK_API_VERSION_NAMESPACE(MSGPACK_DEFAULT_API_NS) {
  namespace adaptor {

  template <class Tag>
  struct convert<farcall::Id<Tag>> {
    const msgpack::object& operator()(const msgpack::object& o, farcall::Id<Tag>& id) const {
      if (o.type != msgpack::type::BIN || o.via.bin.size != id.bytes.size())
        throw msgpack::type_error();
      std::memcpy(id.bytes.data(), o.via.bin.ptr, id.bytes.size());
      return o;
    }
  };
  template <class Tag>
  struct pack<farcall::Id<Tag>> {
    template <class Stream>
    packer<Stream>& operator()(packer<Stream>& p, const farcall::Id<Tag>& id) const {
      p.pack_bin(static_cast<std::uint32_t>(id.bytes.size()));
      p.pack_bin_body(reinterpret_cast<const char*>(id.bytes.data()),
                      static_cast<std::uint32_t>(id.bytes.size()));
      return p;
    }
  };

  template <>
  struct convert<farcall::RangeSet> {
    const msgpack::object& operator()(const msgpack::object& o, farcall::RangeSet& ranges) const {
      auto parsed = farcall::RangeSet::from_flat(o.as<std::vector<std::uint32_t>>());
      if (!parsed) throw msgpack::type_error();
      ranges = std::move(*parsed);
      return o;
    }
  };
  template <>
  struct pack<farcall::RangeSet> {
    template <class Stream>
    packer<Stream>& operator()(packer<Stream>& p, const farcall::RangeSet& ranges) const {
      p.pack_array(static_cast<std::uint32_t>(ranges.ranges().size() * 2));
      for (farcall::Range range : ranges.ranges()) p.pack(range.first).pack(range.last);
      return p;
    }
  };

// The fields of a struct that is not ours to add macros to, in their order on the wire.
#define FARCALL_PACK(Type, ...)                                                  \
  template <>                                                                    \
  struct convert<Type> {                                                         \
    const msgpack::object& operator()(const msgpack::object& o, Type& v) const { \
      auto fields = [](auto& x) { return farcall_fields_(x, __VA_ARGS__); };     \
      convert_fields(o, fields(v));                                              \
      return o;                                                                  \
    }                                                                            \
  };                                                                             \
  template <>                                                                    \
  struct pack<Type> {                                                            \
    template <class Stream>                                                      \
    packer<Stream>& operator()(packer<Stream>& p, const Type& v) const {         \
      auto fields = [](auto& x) { return farcall_fields_(x, __VA_ARGS__); };     \
      pack_fields(p, fields(v));                                                 \
      return p;                                                                  \
    }                                                                            \
  };

  template <class T, class... Members>
  auto farcall_fields_(T& value, Members... members) {
    return std::tie(value.*members...);
  }
  template <class... Fields>
  void convert_fields(const msgpack::object& o, std::tuple<Fields&...> fields) {
    if (o.type != msgpack::type::ARRAY) throw msgpack::type_error();
    std::uint32_t i = 0;
    auto one = [&](auto& field) {
      if (i < o.via.array.size) o.via.array.ptr[i].convert(field);
      ++i;
    };
    std::apply([&](auto&... field) { (one(field), ...); }, fields);
  }
  template <class Stream, class... Fields>
  void pack_fields(packer<Stream>& p, std::tuple<Fields&...> fields) {
    p.pack_array(sizeof...(Fields));
    std::apply([&](auto&... field) { (p.pack(field), ...); }, fields);
  }

  }  // namespace adaptor
}
}  // namespace msgpack

MSGPACK_ADD_ENUM(farcall::FunctionKind)
MSGPACK_ADD_ENUM(farcall::TaskState)
MSGPACK_ADD_ENUM(farcall::FailureClass)

namespace msgpack {
MSGPACK_API_VERSION_NAMESPACE(MSGPACK_DEFAULT_API_NS) {
  namespace adaptor {
  using namespace farcall;        // NOLINT: field lists read better without prefixes
  using namespace farcall::wire;  // NOLINT

  // clang-format off
  FARCALL_PACK(RetryPolicy, &RetryPolicy::user_error, &RetryPolicy::crash, &RetryPolicy::lost,
               &RetryPolicy::memory_exceeded, &RetryPolicy::time_exceeded,
               &RetryPolicy::allocation_ended, &RetryPolicy::environment, &RetryPolicy::never)
  FARCALL_PACK(TaskHistory, &TaskHistory::index, &TaskHistory::attempt, &TaskHistory::failures)
  FARCALL_PACK(Resources, &Resources::cores, &Resources::memory_mib, &Resources::gpus,
               &Resources::nodes, &Resources::ranks, &Resources::exclusive)
  FARCALL_PACK(SubmissionHeader, &SubmissionHeader::submission, &SubmissionHeader::function,
               &SubmissionHeader::endpoint, &SubmissionHeader::owner, &SubmissionHeader::group,
               &SubmissionHeader::label, &SubmissionHeader::priority, &SubmissionHeader::resources,
               &SubmissionHeader::walltime_ms, &SubmissionHeader::retry,
               &SubmissionHeader::environment, &SubmissionHeader::sandbox,
               &SubmissionHeader::created_ms)
  FARCALL_PACK(FunctionRecord, &FunctionRecord::id, &FunctionRecord::kind, &FunctionRecord::name,
               &FunctionRecord::meta)
  FARCALL_PACK(TaskOutcome, &TaskOutcome::index, &TaskOutcome::attempt, &TaskOutcome::state,
               &TaskOutcome::failure, &TaskOutcome::exit_code, &TaskOutcome::signal,
               &TaskOutcome::started_ms, &TaskOutcome::ended_ms, &TaskOutcome::host,
               &TaskOutcome::data_size)
  FARCALL_PACK(Hello, &Hello::magic, &Hello::version, &Hello::oldest_version, &Hello::software,
               &Hello::host, &Hello::pid)
  FARCALL_PACK(Ping, &Ping::answer)
  FARCALL_PACK(Reset, &Reset::reason)
  FARCALL_PACK(Refused, &Refused::code, &Refused::text)
  FARCALL_PACK(Call, &Call::request, &Call::method)
  FARCALL_PACK(Reply, &Reply::request, &Reply::error, &Reply::text)
  FARCALL_PACK(Credit, &Credit::tasks, &Credit::bytes)
  FARCALL_PACK(SubmissionRanges, &SubmissionRanges::submission, &SubmissionRanges::ranges)
  FARCALL_PACK(SubmissionOutcomes, &SubmissionOutcomes::submission, &SubmissionOutcomes::outcomes)
  FARCALL_PACK(ChunkMeta, &ChunkMeta::first, &ChunkMeta::sizes)
  FARCALL_PACK(ClientHello, &ClientHello::hello, &ClientHello::invitation)
  FARCALL_PACK(ClientWelcome, &ClientWelcome::relay, &ClientWelcome::user,
               &ClientWelcome::generation, &ClientWelcome::inline_bytes_max)
  FARCALL_PACK(RegisterFunction, &RegisterFunction::request, &RegisterFunction::function)
  FARCALL_PACK(SubmitPart, &SubmitPart::submission, &SubmitPart::header, &SubmitPart::chunks,
               &SubmitPart::seal, &SubmitPart::count)
  FARCALL_PACK(Submit, &Submit::parts)
  FARCALL_PACK(SubmitResult, &SubmitResult::submission, &SubmitResult::received,
               &SubmitResult::sealed, &SubmitResult::error, &SubmitResult::text)
  FARCALL_PACK(SubmitAck, &SubmitAck::results)
  FARCALL_PACK(WatchItem, &WatchItem::submission, &WatchItem::have, &WatchItem::outcomes,
               &WatchItem::stop)
  FARCALL_PACK(Watch, &Watch::items)
  FARCALL_PACK(TaskResults, &TaskResults::results)
  FARCALL_PACK(Collected, &Collected::items)
  FARCALL_PACK(ProgressItem, &ProgressItem::submission, &ProgressItem::received,
               &ProgressItem::sealed, &ProgressItem::succeeded, &ProgressItem::failed,
               &ProgressItem::cancelled, &ProgressItem::running, &ProgressItem::error)
  FARCALL_PACK(Progress, &Progress::items)
  FARCALL_PACK(EndpointHello, &EndpointHello::hello, &EndpointHello::endpoint,
               &EndpointHello::instance, &EndpointHello::epoch, &EndpointHello::take_over,
               &EndpointHello::holds)
  FARCALL_PACK(EndpointWelcome, &EndpointWelcome::epoch, &EndpointWelcome::generation,
               &EndpointWelcome::forget, &EndpointWelcome::endpoint_name)
  FARCALL_PACK(ChunkDelivery, &ChunkDelivery::submission, &ChunkDelivery::chunk,
               &ChunkDelivery::run, &ChunkDelivery::histories)
  FARCALL_PACK(Work, &Work::functions, &Work::submissions, &Work::chunks)
  FARCALL_PACK(CancelTasks, &CancelTasks::items)
  FARCALL_PACK(Results, &Results::batch, &Results::results)
  FARCALL_PACK(ResultsAck, &ResultsAck::batches)
  FARCALL_PACK(Running, &Running::running)
  FARCALL_PACK(SpentAttempts, &SpentAttempts::submission, &SpentAttempts::histories)
  FARCALL_PACK(Attempts, &Attempts::items)
  FARCALL_PACK(AttemptRef, &AttemptRef::submission, &AttemptRef::index, &AttemptRef::attempt)
  FARCALL_PACK(PilotHello, &PilotHello::hello, &PilotHello::block, &PilotHello::pilot,
               &PilotHello::node, &PilotHello::node_rank, &PilotHello::job_start,
               &PilotHello::incarnation, &PilotHello::epoch, &PilotHello::cores,
               &PilotHello::memory_mib, &PilotHello::remaining_s, &PilotHello::holds,
               &PilotHello::unacknowledged)
  FARCALL_PACK(PilotWelcome, &PilotWelcome::epoch, &PilotWelcome::heartbeat_ms,
               &PilotWelcome::lost_timeout_ms, &PilotWelcome::abandon, &PilotWelcome::slots)
  FARCALL_PACK(TaskStart, &TaskStart::index, &TaskStart::attempt, &TaskStart::size)
  FARCALL_PACK(DispatchGroup, &DispatchGroup::submission, &DispatchGroup::tasks)
  FARCALL_PACK(Dispatch, &Dispatch::functions, &Dispatch::submissions, &Dispatch::groups)
  FARCALL_PACK(CancelAttempts, &CancelAttempts::attempts)
  FARCALL_PACK(PilotStatus, &PilotStatus::running, &PilotStatus::queued, &PilotStatus::remaining_s)
  FARCALL_PACK(Stop, &Stop::reason, &Stop::grace_ms)
  FARCALL_PACK(HandBack, &HandBack::attempts, &HandBack::reason)
  FARCALL_PACK(Topology, &Topology::processors, &Topology::domains, &Topology::gpus,
               &Topology::guests)
  FARCALL_PACK(NodeShare, &NodeShare::node, &NodeShare::node_rank, &NodeShare::ranks,
               &NodeShare::slots, &NodeShare::processors, &NodeShare::gpus)
  FARCALL_PACK(TaskPlace, &TaskPlace::attempt, &TaskPlace::shares)
  FARCALL_PACK(Places, &Places::places)
  FARCALL_PACK(Guest, &Guest::attempt, &Guest::slots)
  FARCALL_PACK(Guests, &Guests::guests)
  FARCALL_PACK(Spawn, &Spawn::attempt, &Spawn::request, &Spawn::node_rank, &Spawn::command,
               &Spawn::environment, &Spawn::directory)
  FARCALL_PACK(Spawned, &Spawned::attempt, &Spawned::request, &Spawned::code, &Spawned::text)
  FARCALL_PACK(PlacedShare, &PlacedShare::pilot, &PlacedShare::ranks, &PlacedShare::memory_mib,
               &PlacedShare::slots, &PlacedShare::gpus)
  FARCALL_PACK(PlacedTasks, &PlacedTasks::submission, &PlacedTasks::ranges, &PlacedTasks::shares,
               &PlacedTasks::never)
  FARCALL_PACK(BlobRef, &BlobRef::hash, &BlobRef::size)
  FARCALL_PACK(BlobOffer, &BlobOffer::blobs)
  FARCALL_PACK(BlobWant, &BlobWant::blobs, &BlobWant::damaged)
  FARCALL_PACK(BlobState, &BlobState::blob, &BlobState::error, &BlobState::text, &BlobState::file)
  FARCALL_PACK(BlobGet, &BlobGet::blob, &BlobGet::offset, &BlobGet::size)
  FARCALL_PACK(BlobChunk, &BlobChunk::blob, &BlobChunk::offset, &BlobChunk::error,
               &BlobChunk::text)
  FARCALL_PACK(ShellResult, &ShellResult::cmd, &ShellResult::out, &ShellResult::err,
               &ShellResult::returncode, &ShellResult::exception_name, &ShellResult::truncated,
               &ShellResult::out_bytes, &ShellResult::err_bytes)
  FARCALL_PACK(TaskNote, &TaskNote::index, &TaskNote::attempt, &TaskNote::has_progress,
               &TaskNote::done, &TaskNote::total, &TaskNote::text, &TaskNote::out_offset,
               &TaskNote::out_size, &TaskNote::err_offset, &TaskNote::err_size)
  FARCALL_PACK(SubmissionNotes, &SubmissionNotes::submission, &SubmissionNotes::notes)
  FARCALL_PACK(Notes, &Notes::items)
  FARCALL_PACK(Envelope, &Envelope::type, &Envelope::session, &Envelope::sequence)
  // clang-format on

  // No fields yet: FARCALL_PACK needs one.
  template <>
  struct convert<EndpointStatus> {
    const msgpack::object& operator()(const msgpack::object& o, EndpointStatus&) const {
      if (o.type != msgpack::type::ARRAY) throw msgpack::type_error();
      return o;
    }
  };
  template <>
  struct pack<EndpointStatus> {
    template <class Stream>
    packer<Stream>& operator()(packer<Stream>& p, const EndpointStatus&) const {
      return p.pack_array(0);
    }
  };
  }  // namespace adaptor
}
}  // namespace msgpack

namespace farcall::wire {

namespace {
// A string that the packer appends to, so that the packed body needs no further copy.
struct StringStream {
  std::string& out;
  void write(const char* data, std::size_t size) { out.append(data, size); }
};
constexpr char kHeaderMagic[2] = {'f', 'c'};
}  // namespace

template <class Body>
std::string encode(const Body& body) {
  std::string out;
  StringStream stream{out};
  msgpack::pack(stream, body);
  return out;
}

template <class Body>
Result<Body> decode(const Bytes& packed) {
  try {
    Body body;
    msgpack::object_handle handle = msgpack::unpack(packed.data(), packed.size());
    handle.get().convert(body);
    return body;
  } catch (const std::exception& error) {
    return fail(ErrorCode::kCorrupt, "a message of {} bytes cannot be decoded: {}", packed.size(),
                error.what());
  }
}

std::string pack_header(const Envelope& envelope, const Message& message) {
  std::string out(kHeaderMagic, sizeof kHeaderMagic);
  out.reserve(message.body.size() + 32);
  StringStream stream{out};
  msgpack::pack(stream, envelope);
  out.append(message.body.data(), message.body.size());
  return out;
}

Result<Header> unpack_header(const Bytes& frame) {
  if (frame.size() < 3 || std::memcmp(frame.data(), kHeaderMagic, sizeof kHeaderMagic) != 0)
    return fail(ErrorCode::kCorrupt, "not a farcall message: {} bytes without its mark",
                frame.size());
  if (frame.size() > kHeaderBytesMax)
    return fail(ErrorCode::kTooLarge, "a message header of {} bytes, the limit is {}", frame.size(),
                kHeaderBytesMax);
  try {
    std::size_t offset = sizeof kHeaderMagic;
    Header header;
    msgpack::object_handle handle = msgpack::unpack(frame.data(), frame.size(), offset);
    handle.get().convert(header.envelope);
    header.body = frame.slice(offset, frame.size() - offset);
    return header;
  } catch (const std::exception& error) {
    return fail(ErrorCode::kCorrupt, "the envelope of a message of {} bytes cannot be decoded: {}",
                frame.size(), error.what());
  }
}

#define FARCALL_INSTANTIATE(Body)                 \
  template std::string encode<Body>(const Body&); \
  template Result<Body> decode<Body>(const Bytes&);
FARCALL_INSTANTIATE(Ping)
FARCALL_INSTANTIATE(Reset)
FARCALL_INSTANTIATE(Refused)
FARCALL_INSTANTIATE(Call)
FARCALL_INSTANTIATE(Reply)
FARCALL_INSTANTIATE(Credit)
FARCALL_INSTANTIATE(ClientHello)
FARCALL_INSTANTIATE(ClientWelcome)
FARCALL_INSTANTIATE(RegisterFunction)
FARCALL_INSTANTIATE(Submit)
FARCALL_INSTANTIATE(SubmitAck)
FARCALL_INSTANTIATE(Watch)
FARCALL_INSTANTIATE(TaskResults)
FARCALL_INSTANTIATE(Collected)
FARCALL_INSTANTIATE(Progress)
FARCALL_INSTANTIATE(EndpointHello)
FARCALL_INSTANTIATE(EndpointWelcome)
FARCALL_INSTANTIATE(Work)
FARCALL_INSTANTIATE(CancelTasks)
FARCALL_INSTANTIATE(Results)
FARCALL_INSTANTIATE(ResultsAck)
FARCALL_INSTANTIATE(EndpointStatus)
FARCALL_INSTANTIATE(Running)
FARCALL_INSTANTIATE(Attempts)
FARCALL_INSTANTIATE(PilotHello)
FARCALL_INSTANTIATE(PilotWelcome)
FARCALL_INSTANTIATE(Dispatch)
FARCALL_INSTANTIATE(CancelAttempts)
FARCALL_INSTANTIATE(PilotStatus)
FARCALL_INSTANTIATE(Stop)
FARCALL_INSTANTIATE(HandBack)
FARCALL_INSTANTIATE(Notes)
FARCALL_INSTANTIATE(Topology)
FARCALL_INSTANTIATE(Places)
FARCALL_INSTANTIATE(Guests)
FARCALL_INSTANTIATE(Spawn)
FARCALL_INSTANTIATE(Spawned)
FARCALL_INSTANTIATE(PlacedTasks)
FARCALL_INSTANTIATE(BlobOffer)
FARCALL_INSTANTIATE(BlobWant)
FARCALL_INSTANTIATE(BlobState)
FARCALL_INSTANTIATE(BlobGet)
FARCALL_INSTANTIATE(BlobChunk)
FARCALL_INSTANTIATE(SubmissionHeader)
FARCALL_INSTANTIATE(FunctionRecord)
FARCALL_INSTANTIATE(ChunkMeta)
FARCALL_INSTANTIATE(TaskOutcome)
FARCALL_INSTANTIATE(TaskHistory)
FARCALL_INSTANTIATE(SubmissionRanges)
FARCALL_INSTANTIATE(ShellResult)

}  // namespace farcall::wire
