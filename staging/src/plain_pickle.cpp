// A reader for pickles that hold nothing but plain values. It is a stack machine like pickle's own,
// without the instructions that name or call anything: at the first of those the whole is opaque.
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "staging/value.h"

namespace farcall::staging {

namespace {

// pickle's instructions (Lib/pickletools.py); those that are not here make a value opaque.
enum class Op : unsigned char {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kDup = '2',
  kNone = 'N',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kAppend = 'a',
  kAppends = 'e',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kTuple = 't',
  kEmptyDict = '}',
  kSetItem = 's',
  kSetItems = 'u',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

constexpr std::size_t kCopiesMax = 1 << 16;  // nodes that memo references may copy in all

std::size_t nodes_of(const Value& value) {
  std::size_t n = 1;
  if (const auto* list = value.as<List>())
    for (const Value& item : *list) n += nodes_of(item);
  if (const auto* dict = value.as<Dict>())
    for (const auto& [key, item] : *dict) n += nodes_of(item);
  return n;
}

class Machine {
 public:
  explicit Machine(std::string_view input) : input_(input) {}

  Result<Value> run() {
    while (true) {
      if (at_ >= input_.size()) return cut_off();
      const auto op = static_cast<Op>(static_cast<unsigned char>(input_[at_++]));
      if (op == Op::kStop) {
        if (stack_.size() != 1 || !marks_.empty()) return damaged();
        return std::move(stack_.back());
      }
      switch (step(op)) {
        case Step::kOn:
          break;
        case Step::kOpaque:
          return Value{Opaque{}};
        case Step::kCutOff:
          return cut_off();
        case Step::kDamaged:
          return damaged();
      }
    }
  }

 private:
  enum class Step { kOn, kOpaque, kCutOff, kDamaged };

  tl::unexpected<Error> cut_off() const {
    return fail(ErrorCode::kCorrupt, "a pickle of {} bytes is cut off", input_.size());
  }
  tl::unexpected<Error> damaged() const {
    return fail(ErrorCode::kCorrupt, "a pickle is damaged at byte {}", at_);
  }

  Step step(Op op) {
    switch (op) {
      case Op::kProto:
        return skip(1);
      case Op::kFrame:
        return skip(8);
      case Op::kMark:
        marks_.push_back(stack_.size());
        return Step::kOn;
      case Op::kPop:
        if (stack_.empty()) return Step::kDamaged;
        stack_.pop_back();
        return Step::kOn;
      case Op::kNone:
        return push(Value{});
      case Op::kNewTrue:
        return push(Value{true});
      case Op::kNewFalse:
        return push(Value{false});
      case Op::kBinInt:
      case Op::kBinInt1:
      case Op::kBinInt2:
      case Op::kLong1:
      case Op::kBinFloat:
        return number(op);
      case Op::kShortBinUnicode:
      case Op::kBinUnicode:
      case Op::kBinUnicode8:
      case Op::kShortBinBytes:
      case Op::kBinBytes:
      case Op::kBinBytes8:
      case Op::kByteArray8:
        return text(op);
      case Op::kMemoize:
      case Op::kBinPut:
      case Op::kLongBinPut:
      case Op::kBinGet:
      case Op::kLongBinGet:
        return memo(op);
      default:
        return container(op);
    }
  }

  Step push(Value value) {
    complete_ = false;
    stack_.push_back(std::move(value));
    return Step::kOn;
  }
  Step skip(std::size_t n) {
    if (input_.size() - at_ < n) return Step::kCutOff;
    at_ += n;
    return Step::kOn;
  }
  // Little-endian, `n` <= 8 bytes.
  std::optional<std::uint64_t> take_number(std::size_t n) {
    if (input_.size() - at_ < n) return std::nullopt;
    std::uint64_t value = 0;
    std::memcpy(&value, input_.data() + at_, n);
    at_ += n;
    return value;
  }

  Step number(Op op) {
    std::size_t n = op == Op::kBinInt1 ? 1 : op == Op::kBinInt2 ? 2 : op == Op::kBinInt ? 4 : 8;
    if (op == Op::kLong1) {
      const auto size = take_number(1);
      if (!size) return Step::kCutOff;
      if (*size > 8) return Step::kOpaque;
      n = *size;
    }
    auto bits = take_number(n);
    if (!bits) return Step::kCutOff;
    if (op == Op::kBinFloat) return push(Value{std::bit_cast<double>(__builtin_bswap64(*bits))});
    if (op == Op::kBinInt) return push(Value{std::int64_t{static_cast<std::int32_t>(*bits)}});
    if (op == Op::kLong1 && n > 0 && n < 8 && ((*bits >> (8 * n - 1)) & 1) != 0)
      *bits |= ~std::uint64_t{0} << (8 * n);
    return push(Value{static_cast<std::int64_t>(*bits)});
  }

  Step text(Op op) {
    const bool is_text =
        op == Op::kShortBinUnicode || op == Op::kBinUnicode || op == Op::kBinUnicode8;
    const std::size_t n = op == Op::kShortBinUnicode || op == Op::kShortBinBytes ? 1
                          : op == Op::kBinUnicode || op == Op::kBinBytes         ? 4
                                                                                 : 8;
    const auto size = take_number(n);
    if (!size || *size > input_.size() - at_) return Step::kCutOff;
    const std::string_view content = input_.substr(at_, *size);
    at_ += *size;
    return push(is_text ? Value{std::string(content)} : Value{Binary{content}});
  }

  // The memo holds copies. A list or dict is put there before it is filled, so one that is met
  // twice cannot be had from it: opaque. A tuple is complete by then.
  Step memo(Op op) {
    if (op == Op::kMemoize || op == Op::kBinPut || op == Op::kLongBinPut) {
      std::uint64_t place = memo_.size();
      if (op != Op::kMemoize) {
        const auto given = take_number(op == Op::kBinPut ? 1 : 4);
        if (!given) return Step::kCutOff;
        place = *given;
      }
      if (stack_.empty() || place > memo_.size()) return Step::kDamaged;
      if (place == memo_.size()) memo_.emplace_back();
      const Value& top = stack_.back();
      const bool unfinished =
          !complete_ && (top.as<List>() != nullptr || top.as<Dict>() != nullptr);
      memo_[place] = unfinished ? Value{Opaque{}} : top;
      return Step::kOn;
    }
    const auto place = take_number(op == Op::kBinGet ? 1 : 4);
    if (!place) return Step::kCutOff;
    if (*place >= memo_.size()) return Step::kDamaged;
    copied_ += nodes_of(memo_[*place]);
    if (memo_[*place].as<Opaque>() != nullptr || copied_ > kCopiesMax) return Step::kOpaque;
    return push(memo_[*place]);
  }

  // What was pushed since the last mark; nullopt: there is none.
  std::optional<List> since_mark() {
    if (marks_.empty() || marks_.back() > stack_.size()) return std::nullopt;
    const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    List items(std::make_move_iterator(from), std::make_move_iterator(stack_.end()));
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return items;
  }
  std::optional<List> top_items(std::size_t n) {
    if (stack_.size() < n) return std::nullopt;
    const auto from = stack_.end() - static_cast<std::ptrdiff_t>(n);
    List items(std::make_move_iterator(from), std::make_move_iterator(stack_.end()));
    stack_.erase(from, stack_.end());
    return items;
  }

  Step container(Op op) {
    switch (op) {
      case Op::kEmptyList:
      case Op::kEmptyTuple:
      case Op::kEmptySet:
        return push(Value{List{}});
      case Op::kEmptyDict:
        return push(Value{Dict{}});
      case Op::kTuple1:
      case Op::kTuple2:
      case Op::kTuple3:
        return push_list(top_items(static_cast<std::size_t>(op) - 0x84));
      case Op::kTuple:
      case Op::kFrozenSet:
        return push_list(since_mark());
      case Op::kAppend:
        return extend(top_items(1));
      case Op::kAppends:
      case Op::kAddItems:
        return extend(since_mark());
      case Op::kSetItem:
        return set_items(top_items(2));
      case Op::kSetItems:
        return set_items(since_mark());
      default:
        return Step::kOpaque;
    }
  }
  Step push_list(std::optional<List> items) {
    if (!items) return Step::kDamaged;
    push(Value{std::move(*items)});
    complete_ = true;
    return Step::kOn;
  }
  Step extend(std::optional<List> items) {
    auto* list = stack_.empty() ? nullptr : std::get_if<List>(&stack_.back().data);
    if (list == nullptr || !items) return Step::kDamaged;
    list->insert(list->end(), std::make_move_iterator(items->begin()),
                 std::make_move_iterator(items->end()));
    return Step::kOn;
  }
  Step set_items(std::optional<List> items) {
    auto* dict = stack_.empty() ? nullptr : std::get_if<Dict>(&stack_.back().data);
    if (dict == nullptr || !items || items->size() % 2 != 0) return Step::kDamaged;
    for (std::size_t i = 0; i < items->size(); i += 2) {
      auto* name = std::get_if<std::string>(&(*items)[i].data);
      const auto shown = name == nullptr ? value_to_json((*items)[i]) : std::nullopt;
      if (name == nullptr && !shown) return Step::kOpaque;
      dict->emplace_back(name != nullptr ? std::move(*name) : shown->dump(),
                         std::move((*items)[i + 1]));
    }
    return Step::kOn;
  }

  std::string_view input_;
  std::size_t at_ = 0;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  std::vector<Value> memo_;
  std::size_t copied_ = 0;
  bool complete_ = false;  // the top of the stack is a tuple that was made just now
};

}  // namespace

Result<Value> decode_plain_pickle(std::string_view pickle) { return Machine(pickle).run(); }

}  // namespace farcall::staging
