// The program whose C++ conditions record.py compiles with GDB.

struct Base {
    int id;
};

struct Derived : Base {
    bool ready;
    long total;
    long over(long limit) const;
};

namespace queue {
unsigned short depth = 40000;
}

enum class Level : signed char { Low = -1, High = 1 };

Derived object{{-9}, true, 77};
Derived &reference = object;
Level level = Level::Low;

__attribute__((noinline)) long Derived::over(long limit) const {
    volatile long difference = total - limit;
    return difference; /* stop 1 */
}

extern "C" void _start() {
    object.over(100);
    for (;;) {
        __asm__ volatile("" : : : "memory");
    }
}
