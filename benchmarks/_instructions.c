// A plugin of qemu's user emulation (small: one counter) that prints how many instructions a program of one thread has executed.
// benchmarks/instructions.py compiles it. The declarations are those of qemu-plugin.h, which Debian's qemu-user does not bring.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct qemu_plugin_tb;
enum { add_to_counter = 0 };
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb* block));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block, int operation, void* counter, uint64_t amount);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*ended)(uint64_t id, void* data), void* data);

int qemu_plugin_version = 1;
static uint64_t executed;

static void count(uint64_t id, struct qemu_plugin_tb* block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, add_to_counter, &executed, qemu_plugin_tb_n_insns(block));
}

static void print(uint64_t id, void* data) {
    (void)id, (void)data;
    fprintf(stderr, "\ninstructions executed: %llu\n", (unsigned long long)executed);
}

int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, count);
    qemu_plugin_register_atexit_cb(id, print, NULL);
    return 0;
}
