"""Plain functions: what they get is a line, what they give is the result."""


def greatest_common_divisor(line):
    a, b = (int(word) for word in line.split())
    for candidate in range(min(a, b), 0, -1):
        if a % candidate == 0 and b % candidate == 0:
            return candidate


async def words(number):
    return "coprime" if number == "1" else f"both divisible by {number}"
