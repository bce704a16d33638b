/* A `libnvidia-ml.so.1` of two cards, for the real bindings to load where there is no GPU.
 *
 * Written from NVIDIA's public NVML reference: names, types, error numbers. The second card refuses
 * to tell its power. NVML_STUB=no-driver makes it a machine whose driver is not loaded. When the file
 * named by NVML_STUB_LOST exists, the second card has fallen off the bus.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct card *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned int version; int sensorType, temperature; } nvmlTemperature_t;

enum {
  SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15
};

#define GIB (1ull << 30)

struct card {
  const char *name, *uuid;
  unsigned long long total, used;
  unsigned int load, celsius, milliwatts; /* 0 mW: refuses to tell */
};

static struct card cards[] = {
  {"NVIDIA Stub 24", "GPU-00000000-0000-0000-0000-000000000001", 24 * GIB, 6 * GIB, 75, 61, 71500},
  {"NVIDIA Stub 48", "GPU-00000000-0000-0000-0000-000000000002", 48 * GIB, 12 * GIB, 25, 40, 0},
};
static int initialised = 0;

static nvmlReturn_t look(nvmlDevice_t card) {
  const char *lost = getenv("NVML_STUB_LOST");
  if (!initialised) return UNINITIALIZED;
  if (card != &cards[0] && card != &cards[1]) return INVALID_ARGUMENT;
  return card == &cards[1] && lost && access(lost, F_OK) == 0 ? GPU_IS_LOST : SUCCESS;
}

static nvmlReturn_t put(nvmlDevice_t card, const char *text, char *out, unsigned int length) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  if (strlen(text) >= length) return INSUFFICIENT_SIZE;
  strcpy(out, text);
  return SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
  const char *kind = getenv("NVML_STUB");
  (void)flags;
  if (kind && strcmp(kind, "no-driver") == 0) return DRIVER_NOT_LOADED;
  initialised = 1;
  return SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
  initialised = 0;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
  if (!initialised) return UNINITIALIZED;
  *count = 2;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *card) {
  if (!initialised) return UNINITIALIZED;
  if (index > 1) return INVALID_ARGUMENT;
  *card = &cards[index];
  return look(*card);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t card, char *name, unsigned int length) {
  return put(card, card->name, name, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t card, char *uuid, unsigned int length) {
  return put(card, card->uuid, uuid, length);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t card, nvmlMemory_t *memory) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  *memory = (nvmlMemory_t){card->total, card->total - card->used, card->used};
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t card, nvmlMemory_v2_t *memory) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  *memory = (nvmlMemory_v2_t){memory->version, card->total, 0, card->total - card->used, card->used};
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t card, nvmlUtilization_t *rates) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  *rates = (nvmlUtilization_t){card->load, card->load / 2};
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t card, int sensor, unsigned int *celsius) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  if (sensor != 0) return NOT_SUPPORTED;
  *celsius = card->celsius;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t card, nvmlTemperature_t *temperature) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  if (temperature->sensorType != 0) return NOT_SUPPORTED;
  temperature->temperature = (int)card->celsius;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t card, unsigned int *milliwatts) {
  nvmlReturn_t seen = look(card);
  if (seen != SUCCESS) return seen;
  if (card->milliwatts == 0) return NOT_SUPPORTED;
  *milliwatts = card->milliwatts;
  return SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t error) {
  switch (error) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
  }
}
