//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// line is one of the table: what was measured, and what is demanded of berth.
type line struct {
	row     int
	title   string
	what    string   // the figure
	subject string   // berth or, empty, also berth
	against []figure // of the best of these a share; none: the limit is a figure itself
	less    bool     // less is better
	limit   float64  // 0: nothing is demanded
}

// of are the figures of the same thing that some servers show.
func of(what string, servers ...string) (all []figure) {
	for _, s := range servers {
		all = append(all, figure{what, s})
	}
	return all
}

// lines are all that is demanded. crane loses its tags with its process, so its list of them is no measure.
func (b *bench) lines() []line {
	all := []line{
		{rowStart, "start to the first 200, ms", "start", berth, of("start", crane), true, 1.3},
		{rowStart, "  sdk.Open, cold, to the first 200, ms", openCold + toAnswer, berth, of("start", crane), true, 3},
		{rowStart, "  sdk.Open where the plugin runs, ms", openAttach, berth, of("start", crane), true, 0.3},
		{rowStart, "    to the first 200, ms", openAttach + toAnswer, berth, of("start", crane), true, 0},
		{rowStart, "  sdk.Open in process, ms", openInProcess, berth, of("start", crane), true, 0.4},
		{rowStart, "    to the first 200, ms", openInProcess + toAnswer, berth, of("start", crane), true, 0},
		{rowPush, "push the big blob, MiB/s", "push", berth, of("push", crane, distribution), false, 1.15},
		{rowPull, "pull it, MiB/s", "pull", berth, of("pull", crane, distribution), false, 1},
		{rowPull, "  server's CPU, ms for a GiB", "pull cpu", berth, of("pull cpu", crane, distribution), true, 1},
		{rowSmall, "small images, 8 at once, a second", "small", berth, of("small", crane), false, 1},
		{rowSmall, "  99th percentile, ms", "small p99", berth, of("small p99", crane), true, 1.2},
		{rowSmall, "  in power mode, a second", "small", berthPower, of("small", distribution), false, 3},
		{rowManifest, "GET a manifest by tag, a second", "manifest", berth, of("manifest", crane), false, 1},
		{rowManifest, "  of the bare handler's", "manifest", berth, of("manifest", bare), false, 0.9},
		{rowHead, "HEAD of the big blob, a second", "head", berth, of("head", crane, distribution), false, 1},
		{rowTag, "one more tag at 100, ms", tagsFigure(fewest), berth, of(tagsFigure(fewest), crane), true, 1.5},
		{rowTag, "one more tag at 5200, ms", tagsFigure(many), berth, of(tagsFigure(many), crane), true, 1.5},
	}
	if b.tags > 0 {
		at := tagsFigure(b.tags)
		all = append(all,
			line{rowTag, fmt.Sprintf("one more tag at %d, ms", b.tags), at, berth, of(at, crane), true, 1.5},
			line{rowTag, "  of what it is at 100", at, berth, of(tagsFigure(fewest), berth), true, 2})
	}
	all = append(all,
		line{rowList, "list 5200 tags, ms", "list", berth, of("list", distribution), true, 0.2},
		line{rowRestart, "start with all that, ms", "restart", berth, of("start", berth), true, 1.2},
		line{rowMemory, "peak anonymous memory, MiB", "memory", berth, nil, true, 40},
		line{rowMemory, "  peak resident memory, MiB", "resident", berth, nil, true, 0})
	for _, d := range b.disks {
		for _, layers := range layerCounts {
			all = append(all, imageLines(d.name, layers)...)
		}
	}
	return all
}

// imageLines are those of an image that is pushed from a layout. The column of distribution is what skopeo does, that of
// the bare handler what one core hashes.
func imageLines(disk string, layers int) []line {
	image := imageFigure("image", disk, layers)
	share := map[string]float64{"1": 0.8, "2": 1.1, diskXFS + "1": 0.9, diskXFS + "2": 1.5}
	onXFS := disk == diskXFS
	key := fmt.Sprint(layers)
	if onXFS {
		key = diskXFS + key
	}
	all := []line{
		{rowImage, fmt.Sprintf("image, disk %s, layers %d, MiB/s", disk, layers), image, berth, of(image, bare), false, share[key]},
		{rowImage, "  of the best peer's", image, berth, of(image, crane, distribution), false, 2},
		{rowImage, "  again, ms", imageFigure("again", disk, layers), berth, nil, true, 5},
	}
	if onXFS {
		all = append(all, line{rowImage, "  room on the disk, MiB", imageFigure("disk", disk, layers), berth, nil, true, 2})
	}
	return all
}

// print prints what was measured, and reports whether all that is demanded was met.
func (b *bench) print(out io.Writer) (met bool) {
	for name, use := range b.watching.uses() {
		if name == berthPower {
			continue // it does nothing that berth does not
		}
		b.add("memory", name, float64(use.anonymous)/1024)
		b.add("resident", name, float64(use.resident)/1024)
	}
	fmt.Fprintf(out, "medians of %d rounds; a big blob of %d MiB; the machine's load is %s\n", b.rounds, b.size>>20, load())
	met = b.printTable(out, []string{crane, distribution, bare, berth}, b.lines())
	return b.printTable(out, syncColumns, b.syncLines()) && met
}

// printTable prints those of some lines that are asked for.
func (b *bench) printTable(out io.Writer, columns []string, lines []line) (met bool) {
	lines = slices.DeleteFunc(lines, func(l line) bool { return !b.wants(l.row) })
	if len(lines) == 0 {
		return true
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintf(table, "\n\t\t%s\tratio\tdemanded\t\n", strings.Join(columns, "\t"))
	met = true
	for _, l := range lines {
		met = b.printLine(table, l, columns) && met
	}
	return met
}

func (b *bench) printLine(table io.Writer, l line, columns []string) (met bool) {
	fmt.Fprintf(table, "%d\t%s", l.row, l.title)
	for _, column := range columns {
		if column == berth {
			column = l.subject
		}
		cell := "–"
		if value, known := b.value(figure{l.what, column}); known {
			cell = digits(value)
		}
		fmt.Fprintf(table, "\t%s", cell)
	}
	ratio, demand, met := b.judge(l)
	fmt.Fprintf(table, "\t%s\t%s\n", ratio, demand)
	return met
}

// judge compares a line with what is demanded.
func (b *bench) judge(l line) (ratio, demand string, met bool) {
	share, known := b.value(figure{l.what, l.subject})
	if best, found := b.best(l); found {
		share /= best
	} else if l.against != nil {
		known = false
	}
	switch {
	case l.limit == 0:
		return "", "", true
	case !known:
		return "–", "not measured", true
	}
	sign, met := "≥", share >= l.limit-tiny
	if l.less {
		sign, met = "≤", share <= l.limit+tiny
	}
	verdict := map[bool]string{true: "met", false: "MISSED"}[met]
	return against(share, l.less), fmt.Sprintf("%s %g\t%s", sign, l.limit, verdict), met
}

// best is the best figure of those that berth is compared with.
func (b *bench) best(l line) (best float64, found bool) {
	for _, f := range l.against {
		value, known := b.value(f)
		if known && (!found || (value < best) == l.less) {
			best, found = value, true
		}
	}
	return best, found
}

// tiny is what the arithmetic may get wrong.
const tiny = 1e-9

// against writes a ratio with two decimals, rounded so that it never looks better than it is.
func against(share float64, less bool) string {
	if less {
		return fmt.Sprintf("%.2f", math.Ceil(share*100-tiny)/100)
	}
	return fmt.Sprintf("%.2f", math.Floor(share*100+tiny)/100)
}

// digits writes a figure with about three digits that count.
func digits(value float64) string {
	switch {
	case value >= 100:
		return fmt.Sprintf("%.0f", value)
	case value >= 10:
		return fmt.Sprintf("%.1f", value)
	}
	return fmt.Sprintf("%.2f", value)
}

// load is what the machine does, in the kernel's words.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "not known"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
