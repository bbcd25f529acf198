// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel crate prints with the formats "%s: %pA" and, for KERN_CONT, "%pA", behind two bytes of level.
 * A kernel without CONFIG_RUST does not know %pA: the text is made here, and printed with %s.
 */
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/printk.h>
#include <linux/stdarg.h>
#include <linux/string.h>

/* Bytes of a message; the stack may be that of an interrupt. */
#define LONGEST 400

char *rust_fmt_argument(char *buf, char *end, const void *arguments);
int ondemand_rust_printk(const char *format, ...);

int ondemand_rust_printk(const char *format, ...)
{
	char text[LONGEST], *last = text + sizeof(text) - 1;
	bool named = !strcmp(format + 2, "%s: %pA");
	const char *name;
	va_list args;

	va_start(args, format);
	name = named ? va_arg(args, const char *) : "";
	/* It tells where the whole text would have ended. */
	*min(rust_fmt_argument(text, last, va_arg(args, const void *)), last) = 0;
	va_end(args);
	return _printk("%.2s%s%s%s", format, name, named ? ": " : "", text);
}
