package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth/internal/smallfile"
	"github.com/berthoci/berth/internal/strictyaml"
	"github.com/berthoci/berth/sdk"
)

// syncFile is the file of berth sync -f.
type syncFile struct {
	Version           int         `yaml:"version"`
	PlainHTTP         []string    `yaml:"plain-http"`
	CertDirs          oneOrMore   `yaml:"cert-dir"`
	Requests          int         `yaml:"requests"`
	RequestsPerSecond float64     `yaml:"requests-per-second"`
	Sync              []syncEntry `yaml:"sync"`
}

// syncEntry is one sync: the flags of the command, by their names.
type syncEntry struct {
	To        oneOrMore `yaml:"to"`
	Tags      oneOrMore `yaml:"tags"`
	Rename    string    `yaml:"rename"`
	Platforms oneOrMore `yaml:"platforms"`
	Sparse    bool      `yaml:"sparse"`
	Immutable oneOrMore `yaml:"immutable"`
	Referrers *bool     `yaml:"referrers"`
	Prune     bool      `yaml:"prune"`
	PruneMax  *int      `yaml:"prune-max"`
	Verify    bool      `yaml:"verify"`
}

// oneOrMore is a list, of which one can be written without a list.
type oneOrMore []string

// UnmarshalYAML reads a text, or a list of texts.
func (o *oneOrMore) UnmarshalYAML(node *yaml.Node) error {
	if strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!") {
		return fmt.Errorf("line %d: what begins with ! has to be put in quotes: %.60q", node.Line, node.Tag)
	}
	if node.Kind == yaml.ScalarNode {
		*o = oneOrMore{node.Value}
		return nil
	}
	return node.Decode((*[]string)(o))
}

const maxSyncFile = 4 << 20

// syncFields are what a file can have.
const syncFields = "a file has version, plain-http, cert-dir, requests, requests-per-second and sync, and a sync has to, tags, rename, " +
	"platforms, sparse, immutable, referrers, prune, prune-max and verify"

func readSyncFile(path string) (*syncFile, error) {
	data, err := smallfile.Read(path, maxSyncFile)
	if err != nil {
		return nil, err
	}
	file := &syncFile{}
	if err := strictyaml.Decode(data, file, syncFields); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case file.Version == 0:
		return nil, fmt.Errorf("%s: it has no version; want version: 1", path)
	case file.Version != 1:
		return nil, fmt.Errorf("%s: version is %d, want version: 1", path, file.Version)
	case len(file.Sync) == 0:
		return nil, fmt.Errorf("%s: there is nothing to do: sync is a list of what goes where", path)
	}
	return file, nil
}

// flags are those that an entry stands for.
func (e syncEntry) flags(f *syncFlags) (*syncFlags, error) {
	one := &syncFlags{to: e.To, watch: f.watch}
	one.platforms, one.dryRun = e.Platforms, f.dryRun
	one.alone = e.Referrers != nil && !*e.Referrers
	one.Verify = e.Verify || f.Verify
	sel := &one.sel
	sel.Rename, sel.Sparse, sel.Immutable = e.Rename, e.Sparse, e.Immutable
	if sel.Prune = e.Prune; e.PruneMax != nil {
		if *e.PruneMax < 0 {
			return nil, fmt.Errorf("prune-max is %d; want 0 or more", *e.PruneMax)
		}
		sel.PruneMax = cmp.Or(*e.PruneMax, -1)
	}
	if err := one.read(e.Tags); err != nil {
		return nil, err
	}
	_, err := one.Selection.Matcher(one.Patterns)
	return one, err
}

// syncFile does what a file says: one sync after the other, or all at once where each goes on. The failure of one does not
// end the others.
func (a *app) syncFile(cmd *cobra.Command, f *syncFlags, args []string) error {
	if len(args) > 0 {
		return usageError{errors.New("-f names a file that says which tags are meant; leave out the patterns")}
	}
	if err := f.excludeFile(cmd); err != nil {
		return err
	}
	file, err := readSyncFile(f.file)
	if err != nil {
		return err
	}
	var all []*syncFlags
	for i, entry := range file.Sync {
		one, err := entry.flags(f)
		if err != nil {
			return fmt.Errorf("%s: sync %d: %w", f.file, i+1, err)
		}
		all = append(all, one)
	}
	if err := a.mustExist(nil); err != nil {
		return err
	}
	for _, dir := range file.CertDirs {
		if err := (*dirsValue)(&a.certDirs).Set(dir); err != nil {
			return fmt.Errorf("%s: cert-dir: %w", f.file, err)
		}
	}
	a.plainHTTP = append(a.plainHTTP, file.PlainHTTP...)
	a.requests, a.requestsPerSecond = file.Requests, file.RequestsPerSecond
	return a.with(cmd.Context(), func(registry *sdk.Registry) error { return a.syncAll(cmd, registry, f.file, all) })
}

func (a *app) syncAll(cmd *cobra.Command, registry *sdk.Registry, file string, all []*syncFlags) error {
	var group errgroup.Group
	if !all[0].watch {
		group.SetLimit(1)
	}
	errs := make([]error, len(all))
	for i, one := range all {
		group.Go(func() error {
			if err := a.syncOne(cmd, registry, one); errors.Is(err, errDrift) {
				errs[i] = err
			} else if err != nil {
				errs[i] = fmt.Errorf("%s: sync %d: %w", file, i+1, err)
			}
			return nil
		})
	}
	group.Wait()
	if failed := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil || errors.Is(err, errDrift) }); len(failed) > 0 {
		return errors.Join(failed...) // a difference that another has found does not hide them
	}
	return errors.Join(errs...)
}
