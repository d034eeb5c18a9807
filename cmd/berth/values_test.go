package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "30d": 30 * day, "2w": 14 * day, "1.5d": 36 * time.Hour, "0d": 0,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "w", "1", "1y", "-1h", "-1d", "1d2h", "NaNd", "Infw", "1e9w", "99999999999h"} {
		if got, err := parseDuration(text); err == nil || !strings.Contains(err.Error(), "30d") {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "1048576": 1 << 20, "1B": 1, "2KiB": 2 << 10, "3MiB": 3 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40, "1.5GiB": 3 << 29,
		"1kB": 1000, "1KB": 1000, "500MB": 500_000_000, "2GB": 2_000_000_000, "1TB": 1_000_000_000_000, "10 GiB": 10 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "B", "GiB", "0", "0GiB", "-1", "1XB", "NaN", "Inf", "9e18KiB", "9223372036854775808", "1G iB"} {
		if got, err := parseSize(text); err == nil || !strings.Contains(err.Error(), "10GiB") {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}

func TestFlagsOfOtherKinds(t *testing.T) {
	var keep keepValue
	for _, rule := range []string{"app/**=5", "*=1"} {
		if err := keep.Set(rule); err != nil {
			t.Error(err)
		}
	}
	if want := (keepValue{{Repositories: "app/**", Newest: 5}, {Repositories: "*", Newest: 1}}); !slices.Equal(keep, want) || keep.String() != "app/**=5 *=1" {
		t.Errorf("got %v", keep)
	}
	for _, rule := range []string{"app", "=1", "app=", "app=0", "app=-1", "app=many", "[=1", "app=1=2"} {
		if err := keep.Set(rule); err == nil || len(keep) != 2 {
			t.Errorf("%q: got %v, %v", rule, keep, err)
		}
	}
	var hosts hostsValue
	for _, good := range []string{"registry.example.com", "10.0.0.1:5000,http://example.com"} {
		if err := hosts.Set(good); err != nil {
			t.Error(err)
		}
	}
	if want := (hostsValue{"registry.example.com", "10.0.0.1:5000", "http://example.com"}); !slices.Equal(hosts, want) {
		t.Errorf("got %q", hosts)
	}
	for _, bad := range []string{"", "example.com/app", "example.com,", "a b"} {
		if err := new(hostsValue).Set(bad); err == nil {
			t.Errorf("%q is taken for a host", bad)
		}
	}
	var names nameValue
	for _, name := range []string{"registry.example.com", "[::1]:5000"} {
		if err := names.Set(name); err != nil {
			t.Error(err)
		}
	}
	if names.String() != "registry.example.com,[::1]:5000" || names.Set("http://a") == nil || names.Set("") == nil {
		t.Errorf("got %q", names)
	}
	var classes classValue
	for _, class := range []string{"application/vnd.oci.image.*", "**"} {
		if err := classes.Set(class); err != nil {
			t.Error(err)
		}
	}
	if classes.String() != "application/vnd.oci.image.*,**" || classes.Set("[") == nil || classes.Set("") == nil {
		t.Errorf("got %q", classes)
	}
	var address addressValue
	for text, good := range map[string]bool{"127.0.0.1:5000": true, ":443": true, "0.0.0.0:0": true, "nowhere": false, "": false, "a:b": false} {
		if err := address.Set(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
	var text textValue
	if err := text.Set(""); err == nil || text.String() != "" {
		t.Errorf("what is empty is taken: %v", err)
	}
	choice := choiceValue{"process", []string{"process", "power"}}
	if err := choice.Set("hope"); err == nil || choice.String() != "process" {
		t.Errorf("got %v, %v", choice, err)
	}
	if err := choice.Set("power"); err != nil || choice.String() != "power" {
		t.Errorf("got %v, %v", choice, err)
	}
	var grace durationValue
	if grace.String() != "" || grace.option() != 0 {
		t.Errorf("a grace that is not given is %q, %v", &grace, grace.option())
	}
	if err := grace.Set("0"); err != nil || grace.String() != "0s" || grace.option() >= 0 {
		t.Errorf("no grace is %q, %v, %v", &grace, grace.option(), err)
	}
}
