package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/server"
)

// durationValue is a flag's value: a duration as Go writes it, or a number of days or weeks.
type durationValue struct {
	time.Duration
	given bool
}

func (d *durationValue) String() string {
	if !d.given {
		return ""
	}
	return d.Duration.String()
}

// Type is how the help calls it.
func (*durationValue) Type() string { return "duration" }

// Set reads it.
func (d *durationValue) Set(s string) (err error) {
	d.Duration, err = parseDuration(s)
	d.given = err == nil
	return err
}

// option is the duration as an option whose zero means a default: a zero that was given is negative there.
func (d *durationValue) option() time.Duration {
	if d.given && d.Duration == 0 {
		return -1
	}
	return d.Duration
}

var longUnits = map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}

func parseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%.20q is no duration: want one like 90m, 36h, 30d or 2w", s)
	d, err := time.ParseDuration(s)
	if n := len(s) - 1; err != nil && n > 0 && longUnits[s[n:]] > 0 {
		var count float64
		if count, err = strconv.ParseFloat(s[:n], 64); err == nil {
			d, err = scaled(count, longUnits[s[n:]])
		}
	}
	if err != nil || d < 0 {
		return 0, wrong
	}
	return d, nil
}

// scaled is a number of units, if there is such a number.
func scaled[N ~int64](count float64, unit N) (N, error) {
	product := count * float64(unit)
	if !(product >= 0 && product < math.MaxInt64) { // NaN is neither
		return 0, strconv.ErrRange
	}
	return N(product), nil
}

// sizeValue is a flag's value: a number of bytes.
type sizeValue int64

func (n *sizeValue) String() string {
	if *n == 0 {
		return ""
	}
	return size(int64(*n))
}

// Type is how the help calls it.
func (*sizeValue) Type() string { return "size" }

// Set reads it.
func (n *sizeValue) Set(s string) error {
	bytes, err := parseSize(s)
	*n = sizeValue(bytes)
	return err
}

// sizeUnits has the longer names first: "B" ends all of them.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

func parseSize(s string) (int64, error) {
	for _, unit := range sizeUnits {
		number, ok := strings.CutSuffix(s, unit.name)
		if !ok {
			continue
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil {
			break
		}
		if n, err := scaled(count, unit.bytes); err == nil && n > 0 {
			return n, nil
		}
		break
	}
	return 0, fmt.Errorf("%.20q is no size: want one above zero, like 10GiB, 500MB or 1048576", s)
}

// keepValue is a flag's value: rules for which tags are kept.
type keepValue []berth.KeepRule

func (k *keepValue) String() string {
	var rules []string
	for _, rule := range *k {
		rules = append(rules, fmt.Sprintf("%s=%d", rule.Repositories, rule.Newest))
	}
	return strings.Join(rules, " ")
}

// Type is how the help calls it.
func (*keepValue) Type() string { return "PATTERN=N" }

// Set reads one more rule.
func (k *keepValue) Set(s string) error {
	pattern, number, ok := strings.Cut(s, "=")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || pattern == "" {
		return errors.New("want PATTERN=N with N above zero, like 'app/**=5'")
	}
	if !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("%q is no pattern for repositories: want one like 'app/**'", pattern)
	}
	*k = append(*k, berth.KeepRule{Repositories: pattern, Newest: n})
	return nil
}

// textValue is a flag's value: any that is not empty. Where one is, a variable of the shell is not set, most
// likely, and to leave the flag out is not what was meant.
type textValue string

func (v *textValue) String() string { return string(*v) }

// Type is how the help calls it.
func (*textValue) Type() string { return "string" }

// Set reads it.
func (v *textValue) Set(s string) error {
	if s == "" {
		return errors.New("it is empty; name one, or leave the flag out")
	}
	*v = textValue(s)
	return nil
}

// hostsValue is a flag's value: remote registries that plain http is spoken to.
type hostsValue []string

func (v *hostsValue) String() string { return strings.Join(*v, ",") }

// Type is how the help calls it.
func (*hostsValue) Type() string { return "HOST[:PORT]" }

// Set reads one more, or several with commas between them.
func (v *hostsValue) Set(s string) error {
	for host := range strings.SplitSeq(s, ",") {
		if _, err := sdk.NewRemotes(&sdk.Options{PlainHTTP: []string{host}}).Registry(host); err != nil {
			return err
		}
		*v = append(*v, host)
	}
	return nil
}

// dirsValue is a flag's value: directories, which may have any character in their names.
type dirsValue []string

func (v *dirsValue) String() string { return strings.Join(*v, " ") }

// Type is how the help calls it.
func (*dirsValue) Type() string { return "DIR" }

// Set reads one more. One that is not there is mistyped, most likely.
func (v *dirsValue) Set(s string) error {
	info, err := os.Stat(s)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory", s)
	}
	*v = append(*v, s)
	return err
}

// addressValue is a flag's value: where a registry is served. Whether others may reach it there depends on
// other flags.
type addressValue string

func (v *addressValue) String() string { return string(*v) }

// Type is how the help calls it.
func (*addressValue) Type() string { return "HOST:PORT" }

// Set reads it.
func (v *addressValue) Set(s string) error {
	*v = addressValue(s)
	return embedded.CheckAddress(s, embedded.Guard{TLS: true, Auth: true})
}

// nameValue is a flag's value: names that a registry answers to.
type nameValue []string

func (v *nameValue) String() string { return strings.Join(*v, ",") }

// Type is how the help calls it.
func (*nameValue) Type() string { return "HOST[:PORT]" }

// Set reads one more.
func (v *nameValue) Set(s string) error {
	*v = append(*v, s)
	return (&server.Options{Hosts: []string{s}}).Validate()
}

// classValue is a flag's value: patterns of classes of manifests.
type classValue []string

func (v *classValue) String() string { return strings.Join(*v, ",") }

// Type is how the help calls it.
func (*classValue) Type() string { return "GLOB" }

// Set reads one more.
func (v *classValue) Set(s string) error {
	*v = append(*v, s)
	return server.Policy{Allow: []string{s}}.Validate()
}

// choiceValue is a flag's value: one of few words, the first of which is the default.
type choiceValue struct {
	chosen string
	words  []string
}

func (c *choiceValue) String() string { return c.chosen }

// Type is how the help calls it.
func (c *choiceValue) Type() string { return strings.Join(c.words, "|") }

// Set reads it.
func (c *choiceValue) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("want %s", strings.Join(c.words, " or "))
	}
	c.chosen = s
	return nil
}
