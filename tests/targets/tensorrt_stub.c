/* SPDX-License-Identifier: Apache-2.0
 * What TensorRT's Python bindings need to be loaded: the libraries' C entry points, all of which return nothing.
 * Compiled once per library name by test_tensorrt.py; the bindings then have their real classes, enumerations and
 * signatures, and no object of TensorRT's can be made. */
#include <stddef.h>
#include <stdint.h>

#define NOTHING(name) \
  void* name(void) { return NULL; }

NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getPluginRegistry)

int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void* logger, const char* library) {
  (void)logger;
  (void)library;
  return 1;
}

/* 8.x: the parsers of Caffe and UFF, by their C++ names. */
NOTHING(_ZN11nvuffparser15createUffParserEv)
NOTHING(_ZN14nvcaffeparser117createCaffeParserEv)
NOTHING(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
NOTHING(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)

/* Calls through a calibrator's virtual table, as TensorRT's builder does: only so is it known that the bindings
 * find a subclass's Python methods and take what they return. */
typedef int32_t (*number_of)(void* self);
typedef int (*get_batch)(void* self, void* bindings[], const char* names[], int32_t count);
typedef const void* (*read_cache)(void* self, size_t* length);
typedef void (*write_cache)(void* self, const void* cache, size_t length);

static void* slot_of(void* object, int slot) { return (*(void***)object)[slot]; }

int32_t calibrator_batch_size(void* object, int first) { return ((number_of)slot_of(object, first))(object); }
int calibrator_get_batch(void* object, int first, void* bindings[], const char* names[], int32_t count) {
  return ((get_batch)slot_of(object, first + 1))(object, bindings, names, count);
}
const void* calibrator_read(void* object, int first, size_t* length) {
  return ((read_cache)slot_of(object, first + 2))(object, length);
}
void calibrator_write(void* object, int first, const void* cache, size_t length) {
  ((write_cache)slot_of(object, first + 3))(object, cache, length);
}
