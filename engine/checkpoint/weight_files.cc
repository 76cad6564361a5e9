#include "engine/checkpoint/weight_files.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 16 << 20;
constexpr size_t kMaxShards = 512;  // each keeps a file open

// Tensor name to file name, in the index's words.
using WeightMap = std::map<std::string, std::string>;

absl::Status IndexError(absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(kIndexFile, ": ", message));
}

// A name of a file in the model's own directory and nothing else.
bool IsPlainFileName(absl::string_view name) {
  if (name.size() > 255 || !absl::EndsWith(name, ".safetensors") || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return c != '/' && c != '\\' && static_cast<unsigned char>(c) >= ' ';
  });
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& dir) {
  absl::StatusOr<std::string> text = ReadTextFile(dir, kIndexFile, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<nlohmann::json> json = ParseJsonObject(*text, kIndexFile);
  if (!json.ok()) return json.status();
  const auto map = json->find("weight_map");
  if (map == json->end() || !map->is_object())
    return IndexError("weight_map is missing, must be an object");
  WeightMap result;
  for (const auto& [tensor, value] : map->items()) {
    const auto* shard = value.get_ptr<const std::string*>();
    if (shard == nullptr || !IsPlainFileName(*shard)) {
      return IndexError(absl::StrCat("tensor ", Printable(tensor), " is in ", PrintableValue(value),
                                     ", must be in a plain file name that ends in .safetensors"));
    }
    result.emplace(tensor, *shard);
  }
  return result;
}

// "model-00001-of-00003.safetensors" and the like.
bool LooksLikeShard(absl::string_view name) {
  return absl::StartsWith(name, "model-") && absl::StrContains(name, "-of-") &&
         absl::EndsWith(name, ".safetensors");
}

// Tells the user what to do with weights in a pickle, which is not read because it can run code.
std::string HowToConvert(const std::string& dir) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (access(absl::StrCat(dir, "/", name).c_str(), F_OK) != 0) continue;
    return absl::StrCat(
        "; ", name,
        " is a pickle, which is not read: convert it once, where you trust it, with python3 -c "
        "\"import glob, torch, safetensors.torch as s; d = {}; [d.update(torch.load(f, "
        "weights_only=True)) for f in glob.glob('pytorch_model*.bin')]; s.save_file({k: "
        "v.clone().contiguous() for k, v in d.items()}, 'model.safetensors')\"");
  }
  return "";
}

// A shard that the index does not know comes from another save: then nobody can say which one was
// meant.
absl::Status RefuseExtraShards(const std::string& dir, const std::vector<std::string>& known) {
  std::unique_ptr<DIR, int (*)(DIR*)> stream(opendir(dir.c_str()), &closedir);
  if (stream == nullptr) return absl::OkStatus();
  while (const dirent* entry = readdir(stream.get())) {
    if (LooksLikeShard(entry->d_name) &&
        !std::binary_search(known.begin(), known.end(), entry->d_name)) {
      return IndexError(absl::StrCat("does not name the shard ",
                                     Printable(absl::string_view(entry->d_name)),
                                     " that is in the directory"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightFiles>> WeightFiles::Open(const std::string& dir) {
  std::unique_ptr<WeightFiles> files(new WeightFiles);
  files->root_ = kSingleFile;
  absl::Status status = files->OpenShard(dir, kSingleFile);
  if (absl::IsNotFound(status)) {
    files->root_ = kIndexFile;
    status = files->OpenShards(dir);
    if (absl::IsNotFound(status) && files->shards_.empty() &&
        absl::StartsWith(status.message(), kIndexFile)) {
      status = absl::NotFoundError(
          absl::StrCat(kSingleFile, ": is missing, and so is ", kIndexFile, HowToConvert(dir)));
    }
  }
  if (!status.ok()) return status;
  return files;
}

absl::Status WeightFiles::OpenShard(const std::string& dir, const std::string& name) {
  auto file = CheckpointFile::Open(dir, name);
  if (!file.ok()) return file.status();
  const int64_t size = (*file)->size();

  std::string prefix(std::min(size, kSafetensorsPrefixBytes), '\0');
  absl::Status status = (*file)->Read(0, prefix.size(), prefix.data());
  if (!status.ok()) return status;
  absl::StatusOr<int64_t> length = ParseSafetensorsPrefix(prefix, size, name);
  if (!length.ok()) return length.status();

  std::string header(*length, '\0');
  status = (*file)->Read(kSafetensorsPrefixBytes, *length, header.data());
  if (!status.ok()) return status;
  absl::StatusOr<TensorMap> tensors = ParseSafetensorsHeader(header, size, name);
  if (!tensors.ok()) return tensors.status();

  auto shard = std::make_unique<Shard>(Shard{std::move(*file), std::move(*tensors)});
  for (const auto& [tensor, info] : shard->tensors) {
    const auto [it, inserted] =
        tensors_.emplace(tensor, StoredTensor{shard->file.get(), &tensor, &info});
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": tensor ", Printable(tensor),
                                                     " is in ", it->second.file->name(), " too"));
    }
  }
  shards_.push_back(std::move(shard));
  return absl::OkStatus();
}

absl::Status WeightFiles::OpenShards(const std::string& dir) {
  absl::StatusOr<WeightMap> map = ReadIndex(dir);
  if (!map.ok()) return map.status();
  std::vector<std::string> names;
  for (const auto& [tensor, shard] : *map) names.push_back(shard);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() > kMaxShards) {
    return IndexError(
        absl::StrCat("names ", names.size(), " shards, must be at most ", kMaxShards));
  }
  absl::Status status = RefuseExtraShards(dir, names);
  if (!status.ok()) return status;
  for (const std::string& name : names) {
    status = OpenShard(dir, name);
    if (absl::IsNotFound(status))
      return IndexError(absl::StrCat("names the shard ", name, ", which is missing"));
    if (!status.ok()) return status;
  }
  for (const auto& [tensor, shard] : *map) {
    const auto it = tensors_.find(tensor);
    if (it == tensors_.end() || it->second.file->name() != shard) {
      return IndexError(absl::StrCat("tensor ", Printable(tensor), " is not in ", shard));
    }
  }
  for (const auto& [tensor, stored] : tensors_) {
    if (map->find(*stored.name) == map->end()) {
      return IndexError(absl::StrCat("does not name the tensor ", Printable(tensor), " of ",
                                     stored.file->name()));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice
